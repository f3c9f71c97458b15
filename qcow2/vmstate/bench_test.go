package vmstate

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// bigState writes a stream of a machine with n bytes of RAM, a quarter of it
// zero, to a file.
func bigState(b *testing.B, n int64) (*os.File, int64) {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "state"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	var h hand
	h.header()
	h.ram(uint64(n))
	h.bytes(vmPart)
	h.u32(2)
	page := make([]byte, 4096)
	rnd := rand.New(rand.NewPCG(1, 2))
	for at := int64(0); at < n; at += 4096 {
		flag := uint64(ramContinue)
		if at == 0 {
			flag = 0
		}
		kind := uint64(ramPage)
		if rnd.IntN(4) == 0 {
			kind = ramZero
		}
		h.u64(uint64(at) | flag | kind)
		if at == 0 {
			h.counted("a")
		}
		if kind == ramZero {
			h.bytes(0)
		} else {
			page[0], page[100] = byte(rnd.Uint32()), byte(rnd.Uint32())|1
			h = append(h, page...)
		}
		if len(h) > 1<<20 {
			if _, err := f.Write(h); err != nil {
				b.Fatal(err)
			}
			h = h[:0]
		}
	}
	h.u64(ramEOS)
	h.end(nil, `"fields":[]`)
	if _, err := f.Write(h); err != nil {
		b.Fatal(err)
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		b.Fatal(err)
	}
	return f, size
}

const benchRAM = 1 << 30

// BenchmarkCat is the baseline: the file read once.
func BenchmarkCat(b *testing.B) {
	f, size := bigState(b, benchRAM)
	buf := make([]byte, 128<<10)
	b.SetBytes(size)
	for b.Loop() {
		for off := int64(0); off < size; off += int64(len(buf)) {
			if _, err := f.ReadAt(buf, off); err != nil && err != io.EOF {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	f, size := bigState(b, benchRAM)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Open(f, size, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead reads all of RAM.
func BenchmarkRead(b *testing.B) {
	f, size := bigState(b, benchRAM)
	s, err := Open(f, size, Options{})
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	b.SetBytes(size)
	for b.Loop() {
		for off := int64(0); off < benchRAM; off += int64(len(buf)) {
			if _, err := s.Blocks[0].ReadAt(buf, off); err != nil && err != io.EOF {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkWriteStream(b *testing.B) {
	f, size := bigState(b, benchRAM)
	s, err := Open(f, size, Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	for b.Loop() {
		if err := s.WriteStream(io.Discard, nil); err != nil {
			b.Fatal(err)
		}
	}
}
