package sparse_test

import (
	"errors"
	"io"
	"testing"

	"cbt/sparse"
)

func TestFormatError(t *testing.T) {
	for _, c := range []struct {
		err  sparse.FormatError
		want string
	}{
		{sparse.FormatError{Struct: "qcow2 header", Field: "cluster_bits", Off: 20, Value: uint32(62), Msg: "above 21"},
			"qcow2 header at 0x14: cluster_bits 0x3e: above 21"},
		{sparse.FormatError{Struct: "L2 table", Off: 0x30018, Value: uint64(0x1ff), Msg: "not cluster aligned"},
			"L2 table at 0x30018: 0x1ff: not cluster aligned"},
		{sparse.FormatError{Struct: "snapshot table", Off: -1, Field: "name", Value: "a\nb\x00", Err: io.ErrUnexpectedEOF},
			`snapshot table: name "a\nb\x00": unexpected EOF`},
		{sparse.FormatError{Struct: "label", Off: 0, Value: []byte("LABELON\xff"), Msg: "no label"},
			`label at 0x0: "LABELON\xff": no label`},
		{sparse.FormatError{Struct: "delta trailer", Off: -1, Field: "chunks", Value: int64(-5)}, "delta trailer: chunks -5"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("%#v\n got %s\nwant %s", c.err, got, c.want)
		}
		if !errors.Is(&c.err, c.err.Err) && c.err.Err != nil {
			t.Errorf("%v does not wrap %v", &c.err, c.err.Err)
		}
	}
}

func TestExtent(t *testing.T) {
	e := sparse.Extent{Off: 100, Len: 50, Kind: sparse.Zero}
	if got := e.String(); got != "[100,150) zero" {
		t.Errorf("String() = %s", got)
	}
	for _, c := range []struct{ lo, hi, off, n int64 }{
		{0, 200, 100, 50}, {0, 120, 100, 20}, {120, 200, 120, 30}, {110, 120, 110, 10}, {0, 100, 0, 0}, {150, 160, 0, 0},
	} {
		got := e.Clip(c.lo, c.hi)
		if got.Len != c.n || got.Len > 0 && got.Off != c.off || got.Kind != e.Kind {
			t.Errorf("Clip(%d, %d) = %v", c.lo, c.hi, got)
		}
	}
	for k, zero := range map[sparse.Kind]bool{sparse.Data: false, sparse.Zero: true, sparse.Hole: true} {
		if k.ReadsZero() != zero {
			t.Errorf("%v.ReadsZero() = %v", k, !zero)
		}
	}
	if got := sparse.Kind(9).String(); got != "Kind(9)" {
		t.Errorf("Kind(9).String() = %s", got)
	}
}
