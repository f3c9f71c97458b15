package lvm_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"cbt/internal/sample"
	"cbt/lvm"
	"cbt/sparse"
)

// group assembles the only volume group on images of disks.
func group(paths ...string) (*lvm.Group, error) {
	var disks []lvm.Disk
	for _, path := range paths {
		f, err := os.Open(path) // stays open: volumes are read from it
		if err != nil {
			return nil, err
		}
		v, err := sparse.OpenRaw(f)
		if err != nil {
			return nil, err
		}
		disks = append(disks, lvm.Disk{Name: filepath.Base(path), R: v, Size: v.Size()})
	}
	groups, err := lvm.Assemble(disks)
	if err != nil {
		return nil, err
	}
	if len(groups) != 1 {
		return nil, fmt.Errorf("%d volume groups", len(groups))
	}
	return groups[0], nil
}

// A volume from images of the physical volumes that it lies on.
func ExampleGroup_Open() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	sample.Unpack(dir, "lvm/mixed-0.img", "lvm/mixed-1.img", "lvm/mixed-2.img")
	g, err := group(filepath.Join(dir, "mixed-0.img"), filepath.Join(dir, "mixed-1.img"), filepath.Join(dir, "mixed-2.img"))
	if err != nil {
		log.Fatal(err)
	}
	v, err := g.Open("lin", lvm.OpenOptions{})
	if err != nil {
		log.Fatal(err) // a *lvm.MissingError: a physical volume is not there
	}
	block := make([]byte, 4096)
	if _, err := v.ReadAt(block, 1<<20); err != nil {
		log.Fatal(err)
	}
	fmt.Println(v.LV().FullName(), v.LV().Type(), v.Size())
	// Output:
	// mixed/lin linear 3145728
}

// What changed between two snapshots of a thin volume, from the pool's metadata.
func ExampleChanged() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	sample.Unpack(dir, "lvm/mixed-0.img", "lvm/mixed-1.img", "lvm/mixed-2.img")
	g, err := group(filepath.Join(dir, "mixed-0.img"), filepath.Join(dir, "mixed-1.img"), filepath.Join(dir, "mixed-2.img"))
	if err != nil {
		log.Fatal(err)
	}
	old, err := g.Open("snap1", lvm.OpenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	now, err := g.Open("snap2", lvm.OpenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(lvm.MethodOf(old, now))
	for e, err := range lvm.Changed(old, now, 0, now.Size()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Off, e.Len, e.Kind)
	}
	// Output:
	// thin metadata
	// 0 196608 data
	// 393216 196608 data
	// 3538944 196608 data
}
