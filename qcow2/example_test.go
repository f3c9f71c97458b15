package qcow2_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"cbt/internal/sample"
	"cbt/qcow2"
	"cbt/sparse"
)

// images opens qcow2 images by their paths, and the backing files that they name as far as those lie in or
// below one directory: a name inside an image may be a guest's doing.
type images struct {
	dir   string // absolute, without symbolic links
	files []*os.File
}

func (o *images) open(path string, depth int) (*qcow2.Image, error) {
	f, size, err := o.file(path)
	if err != nil {
		return nil, err
	}
	return qcow2.Open(f, size, qcow2.Options{Backing: func(name, format string) (sparse.View, error) {
		// A name with a protocol (nbd:, json:) is no path of a file; chains may close a loop.
		if strings.Contains(name, ":") || depth == 0 {
			return nil, fmt.Errorf("backing file %q: refused", name)
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(path), name)
		}
		switch format {
		case "qcow2":
			img, err := o.open(name, depth-1)
			if err != nil {
				return nil, err
			}
			return img.Active(), nil
		case "raw":
			f, _, err := o.file(name)
			if err != nil {
				return nil, err
			}
			return sparse.OpenRaw(f)
		}
		return nil, fmt.Errorf("backing file %q: format %q is not read", name, format) // and never guessed
	}})
}

// file opens a regular file of the directory for reading.
func (o *images) file(path string) (*os.File, int64, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, 0, err
	}
	if in, err := filepath.Rel(o.dir, real); err != nil || !filepath.IsLocal(in) {
		return nil, 0, fmt.Errorf("%s: not in the directory of the image", filepath.Base(path))
	}
	st, err := os.Stat(real)
	if err != nil {
		return nil, 0, err
	}
	if !st.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: not a regular file", filepath.Base(path))
	}
	f, err := os.Open(real)
	if err != nil {
		return nil, 0, err
	}
	o.files = append(o.files, f)
	return f, st.Size(), nil
}

func (o *images) close() {
	for _, f := range o.files {
		f.Close()
	}
}

// snapshot returns the state of the snapshot with a name.
func snapshot(img *qcow2.Image, name string) (*qcow2.View, error) {
	for i, s := range img.Snapshots() {
		if s.Name == name {
			return img.Snapshot(i)
		}
	}
	return nil, fmt.Errorf("no snapshot %q", name)
}

// changes prints what differs between two snapshots of the image at path.
func changes(path, old, new string) error {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	o := images{dir: dir}
	defer o.close()
	img, err := o.open(filepath.Join(dir, filepath.Base(path)), 256)
	if err != nil {
		return err
	}
	a, err := snapshot(img, old)
	if err != nil {
		return err
	}
	b, err := snapshot(img, new)
	if err != nil {
		return err
	}
	for e, err := range qcow2.Changed(a, b, 0, b.Size()) {
		if err != nil {
			return err
		}
		fmt.Println(e.Off, e.Len, e.Kind)
	}
	return img.Recheck(b) // and nobody deleted the snapshot meanwhile
}

// What changed between two snapshots, from the tables of the image alone.
func ExampleChanged() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	sample.Unpack(dir, "demo.qcow2") // an image with the snapshots monday and tuesday

	if err := changes(filepath.Join(dir, "demo.qcow2"), "monday", "tuesday"); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 0 65536 data
	// 262144 65536 data
	// 4456448 65536 data
	// 4784128 65536 data
	// 5177344 65536 data
	// 5373952 65536 data
	// 5832704 524288 data
}

// An image whose backing files lie beside it is opened, and refused where one of them is a link that leads
// out of the directory.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		log.Fatal(err)
	}
	vm := filepath.Join(dir, "vm")
	if err := os.Mkdir(vm, 0o700); err != nil {
		log.Fatal(err)
	}
	sample.Unpack(vm, "chain-top.qcow2", "chain-mid.qcow2", "chain-base.raw") // top is over mid is over base

	try := func() {
		o := images{dir: vm}
		defer o.close()
		img, err := o.open(filepath.Join(vm, "chain-top.qcow2"), 256)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("a disk of", img.Active().Size(), "bytes")
	}
	try()
	base := filepath.Join(vm, "chain-base.raw")
	if err := os.Rename(base, filepath.Join(dir, "secret")); err != nil {
		log.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "secret"), base); err != nil {
		log.Fatal(err)
	}
	try()
	// Output:
	// a disk of 5242880 bytes
	// qcow2: backing file "chain-mid.qcow2": qcow2: backing file "chain-base.raw": chain-base.raw: not in the directory of the image
}

// Check finds faults of an image, as qemu-img check does.
func ExampleCheck() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	sample.Unpack(dir, "demo.qcow2")
	f, err := os.Open(filepath.Join(dir, "demo.qcow2"))
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		log.Fatal(err)
	}
	stats, err := qcow2.Check(context.Background(), f, st.Size(), func(found qcow2.Fault) { fmt.Println(found) })
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stats.Corruptions, "corruptions,", stats.Leaks, "leaks")
	// Output:
	// 0 corruptions, 0 leaks
}
