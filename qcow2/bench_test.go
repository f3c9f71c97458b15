package qcow2

import (
	"testing"

	"cbt/internal/testimg"
)

func benchmarkRead(b *testing.B, size int, compress bool) {
	q := testimg.NewQcow2(testimg.Qcow2Options{Size: 16 << 20})
	for g := int64(0); g < 16<<20; g += 1 << 16 {
		data := numbered(1<<16, uint64(g))
		if compress {
			clear(data[1<<15:])
			q.Compress(g, data)
		} else {
			q.Write(g, data)
		}
	}
	img, err := openBytes(q.Bytes(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	v, p := img.Active(), make([]byte, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	off := int64(0)
	for b.Loop() {
		if _, err := v.ReadAt(p, off); err != nil {
			b.Fatal(err)
		}
		if off += int64(size); off >= 16<<20 {
			off = 0
		}
	}
}

func BenchmarkRead4K(b *testing.B)           { benchmarkRead(b, 4<<10, false) }
func BenchmarkRead1M(b *testing.B)           { benchmarkRead(b, 1<<20, false) }
func BenchmarkReadCompressed4K(b *testing.B) { benchmarkRead(b, 4<<10, true) }
func BenchmarkReadCompressed1M(b *testing.B) { benchmarkRead(b, 1<<20, true) }

// BenchmarkFirstDifference compares two equal L2 tables of 64 KiB.
func BenchmarkFirstDifference(b *testing.B) {
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	b.SetBytes(64 << 10)
	for b.Loop() {
		if firstDifference(x, y, 0, notCopied, notCopied) != len(x) {
			b.Fatal("differ")
		}
	}
}
