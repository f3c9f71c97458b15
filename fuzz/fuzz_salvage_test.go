package fuzz

import (
	"bytes"
	"context"
	"testing"

	"cbt/cbt"
)

// FuzzSalvage takes any bytes for a damaged delta. Pieces ascend and stay in
// the image, and of what Verify accepts nothing is lost, and all is the same.
func FuzzSalvage(f *testing.F) {
	seedDeltas(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		salvageBytes(t, b)
		salvageBytes(t, reseal(bytes.Clone(b)))
	})
}

func salvageBytes(t *testing.T, b []byte) {
	h, sum, verr := cbt.Verify(context.Background(), bytes.NewReader(b), cbt.VerifyOptions{Workers: 1})
	stream, pos := 0, int64(0)
	totals := make([]cbt.Totals, len(h.Streams))
	s, err := cbt.Salvage(context.Background(), bytes.NewReader(b), int64(len(b)), func(p cbt.Piece) error {
		if p.Stream < stream || p.Stream == stream && p.Off < pos || p.Len <= 0 || p.Off < 0 {
			t.Fatalf("%+v behind %d of stream %d", p, pos, stream)
		}
		stream, pos = p.Stream, p.Off+p.Len
		if p.Kind == cbt.PieceData && int64(len(p.Data)) != p.Len {
			t.Fatalf("%d bytes of %d", len(p.Data), p.Len)
		}
		if verr != nil {
			return nil
		}
		switch p.Kind {
		case cbt.PieceData:
			totals[p.Stream].Data += p.Len
		case cbt.PieceZero:
			totals[p.Stream].Zero += p.Len
		case cbt.PieceLost:
			t.Fatalf("%+v is lost of a whole delta", p)
		}
		if p.Unsure {
			t.Fatalf("%+v of a whole delta", p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if verr != nil {
		return
	}
	if !s.Whole || s.Skipped != 0 || s.Damaged != 0 {
		t.Fatalf("%+v of a whole delta", s)
	}
	for i, n := range totals {
		if n.Data != sum.Streams[i].Data || n.Zero != sum.Streams[i].Zero {
			t.Fatalf("stream %d: %+v, want %+v", i, n, sum.Streams[i])
		}
	}
}
