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

// openFile opens a regular file. What lies outside of dir, by .. or by a link, dir refuses.
func openFile(dir *os.Root, name string) (*os.File, int64, error) {
	st, err := dir.Stat(name)
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", name)
	}
	if err != nil {
		return nil, 0, err
	}
	f, err := dir.Open(name)
	return f, st.Size(), err
}

// openImage opens an image and the backing files that it names, as far as they are in dir: such a name may
// be a guest's doing, and so may what looks like the header of an image in a raw file.
func openImage(dir *os.Root, path string, depth int) (*qcow2.Image, error) {
	f, size, err := openFile(dir, path)
	if err != nil {
		return nil, err
	}
	backing := func(name, format string) (sparse.View, error) {
		name = filepath.Join(filepath.Dir(path), name)
		switch {
		case depth == 0: // chains may close a loop
			return nil, fmt.Errorf("%s: one backing file too many", name)
		case format == "qcow2":
			img, err := openImage(dir, name, depth-1)
			if err != nil {
				return nil, err
			}
			return img.Active(), nil
		case format == "raw":
			f, _, err := openFile(dir, name)
			if err != nil {
				return nil, err
			}
			return sparse.OpenRaw(f)
		}
		return nil, fmt.Errorf("%s: format %q is not read, and never guessed", name, format)
	}
	return qcow2.Open(f, size, qcow2.Options{Backing: backing})
}

// changes prints what changed between two snapshots, given by their places in the table of snapshots.
func changes(path string, before, after int) error {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	img, err := openImage(dir, filepath.Base(path), 255)
	if err != nil {
		return err
	}
	old, err := img.Snapshot(before)
	if err != nil {
		return err
	}
	now, err := img.Snapshot(after)
	if err != nil {
		return err
	}
	for e, err := range qcow2.Changed(old, now, 0, now.Size()) {
		if err != nil {
			return err
		}
		fmt.Println(e.Off, e.Len, e.Kind)
	}
	return nil
}

// What changed between two snapshots, from the tables of the image alone.
func ExampleChanged() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	sample.Unpack(dir, "demo.qcow2") // an image with the snapshots monday and tuesday

	if err := changes(filepath.Join(dir, "demo.qcow2"), 0, 1); err != nil {
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
	vm := filepath.Join(dir, "vm")
	if err := os.Mkdir(vm, 0o700); err != nil {
		log.Fatal(err)
	}
	sample.Unpack(vm, "chain-top.qcow2", "chain-mid.qcow2", "chain-base.raw") // top is over mid is over base

	root, err := os.OpenRoot(vm)
	if err != nil {
		log.Fatal(err)
	}
	defer root.Close()
	img, err := openImage(root, "chain-top.qcow2", 255)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("a disk of", img.Active().Size(), "bytes")

	base := filepath.Join(vm, "chain-base.raw")
	if err := os.Rename(base, filepath.Join(dir, "secret")); err != nil {
		log.Fatal(err)
	}
	if err := os.Symlink("../secret", base); err != nil {
		log.Fatal(err)
	}
	_, err = openImage(root, "chain-top.qcow2", 255)
	fmt.Println("refused:", err != nil && strings.HasSuffix(err.Error(), "path escapes from parent"))
	// Output:
	// a disk of 5242880 bytes
	// refused: true
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
