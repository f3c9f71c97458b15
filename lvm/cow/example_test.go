package cow_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"cbt/internal/sample"
	"cbt/lvm/cow"
	"cbt/sparse"
)

func open(path string) *sparse.Raw {
	f, err := os.Open(path) // stays open: the snapshot is read from it
	if err != nil {
		log.Fatal(err)
	}
	v, err := sparse.OpenRaw(f)
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// A thick snapshot is its exception store over its origin. The store alone tells where the two
// differ.
func ExampleChanged() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	sample.Unpack(dir, "lvm/cow-own.store", "lvm/cow-own-org.origin")
	table, origin := open(filepath.Join(dir, "cow-own.store")), open(filepath.Join(dir, "cow-own-org.origin"))

	store, err := cow.Open(table, table.Size(), cow.Options{})
	if err != nil {
		log.Fatal(err) // cow.ErrInvalidated: the store was full, and the snapshot is lost
	}
	snapshot, err := cow.NewView(store, origin, origin.Size())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(store.Len(), "chunks of", store.ChunkSize(), "bytes")
	for e, err := range cow.Changed(snapshot, origin, 0, origin.Size()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Off, e.Len)
	}
	// Output:
	// 5 chunks of 16384 bytes
	// 409600 16384
	// 819200 16384
	// 1228800 16384
	// 1638400 16384
	// 2048000 16384
}
