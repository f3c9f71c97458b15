package sparse_test

import (
	"bytes"
	"fmt"
	"log"
	"os"

	"cbt/sparse"
)

// A file shows what it stores and where it has holes without being read.
func ExampleOpenRaw() {
	f, err := os.CreateTemp("", "disk")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Truncate(4 << 20); err != nil { // 4 MiB, of which 64 KiB are stored
		log.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{1}, 64<<10), 1<<20); err != nil {
		log.Fatal(err)
	}
	v, err := sparse.OpenRaw(f)
	if err != nil {
		log.Fatal(err)
	}
	for e, err := range v.Extents(0, v.Size()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Off, e.Len, e.Kind)
	}
	// Output:
	// 0 1048576 hole
	// 1048576 65536 data
	// 1114112 3080192 hole
}
