package sparse

import (
	"errors"
	"io"
	"math"
	"testing"
)

// Missing bytes must never be taken for zeros.
func TestMissing(t *testing.T) {
	v := Missing("the other half")
	if !IsMissing(v) || IsMissing(Zeros(1)) || IsMissing(nil) {
		t.Error("IsMissing is wrong")
	}
	var e *MissingError
	if n, err := v.ReadAt(make([]byte, 5), 7); n != 0 || !errors.As(err, &e) || e.Off != 7 || e.Len != 5 || e.What != "the other half" {
		t.Errorf("ReadAt: %d, %v", n, err)
	}
	if _, err := v.ReadAt(make([]byte, 1), math.MaxInt64); err != io.EOF {
		t.Error(err)
	}
	if n, err := v.ReadAt(nil, 0); n != 0 || err != nil {
		t.Error(n, err)
	}
	for e, err := range v.Extents(3, 1<<40) {
		if err != nil || e != (Extent{3, 1 << 40, Data}) {
			t.Error(e, err)
		}
	}
	if got, err := Collect(v.Extents(0, 0)); len(got) != 0 || err != nil {
		t.Error(got, err)
	}
	for _, err := range v.Extents(-1, 1) {
		if err == nil {
			t.Error("an extent before the beginning")
		}
	}
	for _, err := range Compare(v, Zeros(10), 0, 10) {
		if !errors.As(err, &e) {
			t.Errorf("compared with zeros: %v", err)
		}
	}
}
