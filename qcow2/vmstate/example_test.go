package vmstate_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"cbt/internal/sample"
	"cbt/qcow2/vmstate"
)

// A RAM block from the saved state of a machine, as written by migrate exec:cat.
func ExampleState_Block() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	sample.Unpack(dir, "vmstate/plain.state")
	f, err := os.Open(filepath.Join(dir, "plain.state"))
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		log.Fatal(err)
	}
	state, err := vmstate.Open(f, st.Size(), vmstate.Options{})
	if err != nil {
		log.Fatal(err) // vmstate.ErrNotState: the file is something else
	}
	defer state.Close()
	ram := state.Block("pc.ram")
	if ram == nil {
		log.Fatal("no pc.ram")
	}
	page := make([]byte, state.PageSize)
	if _, err := ram.ReadAt(page, 0x1000); err != nil {
		log.Fatal(err)
	}
	fmt.Println(state.MachineType, ram.Size(), "bytes,", ram.Stored(), "pages are not zero")
	// Output:
	// pc-i440fx-7.2 1048576 bytes, 16 pages are not zero
}
