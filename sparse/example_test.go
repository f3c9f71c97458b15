package sparse_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"

	"cbt/sparse"
)

// Copy makes a file hold an image. Blocks of zeros become holes.
func ExampleCopy() {
	image := make([]byte, 1<<20)
	copy(image[512<<10:], "some bytes in the middle")

	f, err := os.CreateTemp("", "disk")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	target, err := sparse.OpenTarget(f)
	if err != nil {
		log.Fatal(err)
	}
	if err := target.Truncate(int64(len(image))); err != nil { // Copy does not make it larger
		log.Fatal(err)
	}
	src := sparse.Plain(bytes.NewReader(image), int64(len(image)))
	stats, err := sparse.Copy(context.Background(), target, src, sparse.CopyOptions{Fresh: true})
	if err != nil {
		log.Fatal(err)
	}
	if err := target.Sync(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("read", stats.Read, "written", stats.Written, "skipped", stats.Skipped)
	// Output:
	// read 1048576 written 4096 skipped 1044480
}

// Sequences of extents are combined without being held in memory.
func ExampleOverlay() {
	top := sparse.Of(sparse.Extent{Off: 4096, Len: 4096, Kind: sparse.Zero})
	bottom := sparse.Of(sparse.Extent{Off: 0, Len: 16384, Kind: sparse.Data})
	for e, err := range sparse.Overlay(top, bottom) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Off, e.Len, e.Kind)
	}
	// Output:
	// 0 4096 data
	// 4096 4096 zero
	// 8192 8192 data
}
