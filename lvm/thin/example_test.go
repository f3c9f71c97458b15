package thin_test

import (
	"bytes"
	"fmt"
	"log"

	"cbt/internal/testthin"
	"cbt/lvm/thin"
)

// pool returns the metadata of a pool of 64 KiB blocks. Device 2 is a snapshot of device 1 and was
// written to since. On a host, /dev/mapper/VG-POOL_tmeta holds such metadata.
func pool() []byte {
	p := testthin.New(100, 200, 126)
	p.Create(1)
	for _, block := range []uint64{0, 1, 5} {
		p.Write(1, block)
	}
	p.Snapshot(1, 2)
	p.Write(2, 1)
	p.Write(2, 9)
	return p.Image()
}

// What changed between a thin device and its snapshot, from the metadata alone and without the
// pool's data.
func ExampleChanged() {
	b := pool()
	m, err := thin.Open(bytes.NewReader(b), int64(len(b)), thin.Options{})
	if err != nil {
		log.Fatal(err)
	}
	const size = 1 << 20 // only the volume group's text contains it
	old, err := m.View(1, size, thin.Data{}, nil)
	if err != nil {
		log.Fatal(err)
	}
	now, err := m.View(2, size, thin.Data{}, nil)
	if err != nil {
		log.Fatal(err)
	}
	for e, err := range thin.Changed(old, now, 0, size) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Off, e.Len, e.Kind)
	}
	// Output:
	// 65536 65536 data
	// 589824 65536 data
}

// The devices of a pool.
func ExampleMetadata_Devices() {
	b := pool()
	m, err := thin.Open(bytes.NewReader(b), int64(len(b)), thin.Options{})
	if err != nil {
		log.Fatal(err)
	}
	devices, err := m.Devices()
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range devices {
		fmt.Println("device", d.ID, "has", d.MappedBlocks, "blocks")
	}
	// Output:
	// device 1 has 3 blocks
	// device 2 has 4 blocks
}
