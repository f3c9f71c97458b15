package cli

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"cbt/internal/report"
	"cbt/sparse"
)

// TestSearch compares the places found in random images, with patterns that
// begin or end with zeros and lie across the ends of extents, with those that
// bytes.Index finds.
func TestSearch(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		b := make([]byte, 1+rnd.IntN(3*searchChunk/2))
		var extents []sparse.Extent
		for at := 0; at < len(b); {
			e := sparse.Extent{Off: int64(at), Len: int64(min(1+rnd.IntN(200_000), len(b)-at)), Kind: sparse.Hole}
			if len(extents)%2 == 0 {
				e.Kind = sparse.Data
				for i := range e.Len {
					b[e.Off+i] = byte(rnd.IntN(3))
				}
			}
			extents = append(extents, e)
			at += int(e.Len)
		}
		pattern := make([]byte, 1+rnd.IntN(9))
		for i := range pattern {
			pattern[i] = byte(rnd.IntN(3))
		}
		if sparse.IsZero(pattern) {
			pattern[rnd.IntN(len(pattern))] = 1
		}
		off := rnd.Int64N(int64(len(b)))
		n := 1 + rnd.Int64N(int64(len(b))-off)
		var want, got []int64
		for at := off; ; at++ {
			i := bytes.Index(b[at:off+n], pattern)
			if i < 0 {
				break
			}
			at += int64(i)
			want = append(want, at)
		}
		v := holey{sparse.Plain(bytes.NewReader(b), int64(len(b))), extents}
		err := search(t.Context(), v, off, n, pattern, report.NoBar{}, func(at int64) (bool, error) {
			got = append(got, at)
			return true, nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%x in [%d, %d): %d places, want %d: %v", pattern, off, off+n, len(got), len(want), err)
		}
	}
}

// holey is an image with the extents that it is given.
type holey struct {
	sparse.View
	extents []sparse.Extent
}

func (h holey) Extents(off, n int64) sparse.Seq { return sparse.Clip(sparse.Of(h.extents...), off, n) }
