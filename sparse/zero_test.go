package sparse_test

import (
	"testing"

	"cbt/sparse"
)

func TestIsZeroEveryByte(t *testing.T) {
	if !sparse.IsZero(nil) {
		t.Error("no bytes are not zero")
	}
	buf := make([]byte, 4096+64)
	lengths := []int{511, 512, 513, 4095, 4096}
	for n := 1; n <= 300; n++ {
		lengths = append(lengths, n)
	}
	for _, n := range lengths {
		for start := range 9 {
			p := buf[start : start+n : start+n]
			// Bytes around p do not count.
			buf[start+n] = 1
			if start > 0 {
				buf[start-1] = 1
			}
			if !sparse.IsZero(p) {
				t.Fatalf("%d zeros at %d: not zero", n, start)
			}
			for i := range p {
				for _, b := range []byte{1, 0x80} {
					p[i] = b
					if sparse.IsZero(p) {
						t.Fatalf("byte %d of %d is 0x%02x, and IsZero", i, n, b)
					}
				}
				p[i] = 0
			}
			clear(buf)
			if n > 512 && start > 1 {
				break
			}
		}
	}
	for _, b := range []byte{1, 0xff} {
		p := make([]byte, 1<<20)
		for i := range p {
			p[i] = b
		}
		if sparse.IsZero(p) {
			t.Errorf("1 MiB of 0x%02x: zero", b)
		}
	}
}

func BenchmarkIsZero(b *testing.B) {
	p := make([]byte, 4096)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if !sparse.IsZero(p) {
			b.Fatal("not zero")
		}
	}
}
