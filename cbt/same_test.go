package cbt

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
)

func TestSameEffect(t *testing.T) {
	ctx := context.Background()
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 31))
		h := newHistory(t, r, 4, 50000+r.IntN(2000000))
		parts, err := NewMerge(layersOf(h.deltas[1:])...)
		if err != nil {
			t.Fatal(err)
		}
		d, _ := mustMerge(t, Options{}, h.deltas[1:]...)
		whole, err := NewMerge(Layer{d, 0})
		if err != nil {
			t.Fatal(err)
		}
		if err := SameEffect(ctx, parts, whole, 1<<30); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if d.Payload() == 0 {
			continue
		}

		// The same extents, with one byte different.
		m := img(bytes.Clone(h.states[3]))
		var at int64 = -1
		for p, err := range d.parts(0, 0, d.Header.Streams[0].Size) {
			if err != nil {
				t.Fatal(err)
			}
			if !p.zero {
				at = p.off
			}
		}
		m[at] ^= 1
		if m[at] == 0 {
			m[at] = 3
		}
		unchecked := func(m img) *Merge {
			h := Header{Version: Version, Consistency: Crash, Streams: d.Header.Streams}
			b := mustWrite(t, h, []Source{{New: m, Changed: d.Extents(0)}}, Options{})
			d, err := Open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			merge, err := NewMerge(Layer{d, 0})
			if err != nil {
				t.Fatal(err)
			}
			return merge
		}
		if err := SameEffect(ctx, unchecked(h.states[3]), unchecked(m), 1<<30); err == nil {
			t.Fatalf("seed %d: a byte at %d differs and is not seen", seed, at)
		}
		one, err := NewMerge(Layer{h.deltas[3], 0})
		if err != nil {
			t.Fatal(err)
		}
		if err := SameEffect(ctx, parts, one, 1<<30); err == nil {
			t.Fatalf("seed %d: the last part alone passes for all", seed)
		}
	}
}

// No merge is larger than predicted.
func TestMergedSize(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 32))
		h := newHistory(t, r, 2+r.IntN(6), r.IntN(3000000))
		line := h.deltas[r.IntN(2):]
		var weights []Weight
		for _, d := range line {
			w, err := d.Weight()
			if err != nil {
				t.Fatal(err)
			}
			weights = append(weights, w)
		}
		if d, _ := mustMerge(t, Options{}, line...); d.Size() > MergedSize(weights) {
			t.Fatalf("seed %d: %d bytes, at most %d", seed, d.Size(), MergedSize(weights))
		}
	}
}

// The tables nearly tell what a merge will have.
func TestEstimate(t *testing.T) {
	ctx := context.Background()
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 33))
		h := newHistory(t, r, 2+r.IntN(6), r.IntN(3000000))
		line := h.deltas[r.IntN(2):]
		_, merges, err := Merged(line)
		if err != nil {
			t.Fatal(err)
		}
		said, err := Estimate(ctx, merges)
		if err != nil {
			t.Fatal(err)
		}
		d, _ := mustMerge(t, Options{}, line...)
		if real := d.Size(); said < real*8/10-4096 || said > real*12/10+4096 {
			t.Errorf("seed %d: %d bytes, and not about %d", seed, real, said)
		}
	}
}
