package cbt_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"

	"cbt/cbt"
	"cbt/sparse"
)

// write makes the delta that leads from the image old to the image new. If old is nil the delta is
// full. from and to are points: names of frozen contents. A name stands for the same bytes for
// ever.
func write(old, new []byte, from, to string) ([]byte, error) {
	stream := cbt.Stream{Name: "disk/0", Size: int64(len(new)), To: to, Full: old == nil}
	source := cbt.Source{New: sparse.Plain(bytes.NewReader(new), int64(len(new)))}
	if old != nil {
		stream.From = &cbt.Base{Point: from, Size: int64(len(old))}
		source.Old = sparse.Plain(bytes.NewReader(old), int64(len(old)))
		// For images with common metadata qcow2.Changed and lvm.Changed are faster.
		source.Changed = sparse.Compare(source.Old, source.New, 0, stream.Size)
	}
	h := cbt.Header{Version: cbt.Version, Consistency: cbt.Crash, Streams: []cbt.Stream{stream}}
	var delta bytes.Buffer
	_, err := cbt.Write(context.Background(), &delta, h, []cbt.Source{source}, cbt.Options{})
	return delta.Bytes(), err
}

func open(delta []byte) *cbt.Delta {
	// Only Verify checks every byte.
	if _, _, err := cbt.Verify(context.Background(), bytes.NewReader(delta), cbt.VerifyOptions{}); err != nil {
		log.Fatal(err)
	}
	d, err := cbt.Open(bytes.NewReader(delta), int64(len(delta)))
	if err != nil {
		log.Fatal(err)
	}
	return d
}

// chain makes a full delta, one that builds on it, and the image at the end.
func chain() (image []byte, deltas []*cbt.Delta) {
	monday := bytes.Repeat([]byte("monday. "), 1<<20/8)
	tuesday := bytes.Clone(monday)
	copy(tuesday[700_000:], "tuesday!")
	full, err := write(nil, monday, "", "monday")
	if err != nil {
		log.Fatal(err)
	}
	next, err := write(monday, tuesday, "monday", "tuesday")
	if err != nil {
		log.Fatal(err)
	}
	return tuesday, []*cbt.Delta{open(full), open(next)}
}

// Write makes a delta of what has changed.
func ExampleWrite() {
	old := make([]byte, 1<<20)
	now := bytes.Clone(old)
	copy(now[10_000:], "changed")
	delta, err := write(old, now, "monday", "tuesday")
	if err != nil {
		log.Fatal(err)
	}
	d := open(delta)
	for e, err := range d.Extents(d.Stream("disk/0")) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Off, e.Len, e.Kind)
	}
	// Output:
	// 8192 4096 data
}

// WriteTo restores: it writes all deltas of a chain as if they were one.
func ExampleMerge_WriteTo() {
	want, deltas := chain()
	last := deltas[1]
	layers, err := cbt.Chain(last, last.Stream("disk/0"), deltas)
	if err != nil {
		log.Fatal(err) // a *cbt.MissingError: no delta leads to a point that is needed
	}
	m, err := cbt.NewMerge(layers...)
	if err != nil {
		log.Fatal(err)
	}
	f, err := os.CreateTemp("", "restored")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	target, err := sparse.OpenTarget(f)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := m.WriteTo(context.Background(), target, cbt.ApplyOptions{Fresh: true}); err != nil {
		log.Fatal(err)
	}
	if err := target.Sync(); err != nil {
		log.Fatal(err)
	}
	got, err := os.ReadFile(f.Name())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(layers), "deltas,", len(got), "bytes, the same:", bytes.Equal(got, want))
	// Output:
	// 2 deltas, 1048576 bytes, the same: true
}

// A Stack is the image at the end of a chain, read without being restored.
func ExampleNewStack() {
	_, deltas := chain()
	last := deltas[1]
	layers, err := cbt.Chain(last, last.Stream("disk/0"), deltas)
	if err != nil {
		log.Fatal(err)
	}
	image, err := cbt.NewStack(layers...)
	if err != nil {
		log.Fatal(err)
	}
	block := make([]byte, cbt.BlockSize)
	if _, err := image.ReadAt(block, 700_000/cbt.BlockSize*cbt.BlockSize); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", block[700_000%cbt.BlockSize-8:][:24])
	// Output:
	// monday. tuesday!monday.
}
