package overlay

import (
	"bytes"
	"os"
	"testing"

	"cbt/sparse"
)

func TestDescribe(t *testing.T) {
	f := scratch(t)
	o := mustOpen(t, sparse.Zeros(70<<20), f)
	if _, err := o.WriteAt([]byte{1}, 69<<20); err != nil {
		t.Fatal(err)
	}
	if err := o.Zero(4096, 8192); err != nil {
		t.Fatal(err)
	}
	if err := o.Sync(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Describe(bytes.NewReader(b), int64(len(b)))
	if err != nil || s.Size != 70<<20 || s.Written != 4096 || s.Zeroed != 8192 || len(s.Base) != 64 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, n := range []int{0, 8, 59, 4096, 8191} {
		if _, err := Describe(bytes.NewReader(b[:n]), int64(n)); err == nil {
			t.Errorf("cut at %d it was described", n)
		}
	}
	b[17] ^= 1
	if _, err := Describe(bytes.NewReader(b), int64(len(b))); err == nil {
		t.Error("a header with a wrong checksum was described")
	}
}
