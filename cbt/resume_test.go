package cbt

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"
)

// half returns a target to which an interrupted WriteTo wrote random parts.
func half(t *testing.T, r *rand.Rand, m *Merge, before, after img) *target {
	t.Helper()
	tg := &target{img: bytes.Clone(before)}
	if r.IntN(8) > 0 && len(tg.img) < len(after) {
		_ = tg.Truncate(after.Size())
	}
	// A cut inside a block leaves a mixture of sectors.
	unit := 512 << r.IntN(5)
	for off := 0; off < min(len(tg.img), len(after)); off += unit {
		if end := min(off+unit, len(tg.img), len(after)); r.IntN(2) == 0 {
			copy(tg.img[off:end], after[off:end])
		}
	}
	if r.IntN(4) == 0 && len(after) < len(tg.img) {
		_ = tg.Truncate(after.Size())
	}
	return tg
}

func TestCheckHalf(t *testing.T) {
	found, missed, blind := 0, 0, 0
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 31))
		h := newHistory(t, r, 3+r.IntN(5), 1+r.IntN(150000))
		from := r.IntN(len(h.states) - 1)
		to := from + 1 + r.IntN(len(h.states)-1-from)
		before, after := h.states[from], h.states[to]
		m, err := NewMerge(layersOf(h.deltas[from+1 : to+1])...)
		if err != nil {
			t.Fatal(err)
		}
		base := layersOf(h.deltas[:from+1])
		tg := half(t, r, m, before, after)
		if err := m.CheckHalf(t.Context(), tg.img, base, nil); err != nil {
			t.Fatalf("seed %d: what was interrupted: %v", seed, err)
		}
		if _, err := m.CheckHalfBlind(t.Context(), tg.img); err != nil {
			t.Fatalf("seed %d: what was interrupted, without its base: %v", seed, err)
		}
		for range 8 {
			wrong := &target{img: bytes.Clone(tg.img)}
			at := r.IntN(len(wrong.img))
			wrong.img[at] ^= byte(1 + r.IntN(255))
			byteOf := func(m img) byte {
				if at < len(m) {
					return m[at]
				}
				return 0
			}
			right := wrong.img[at] == byteOf(before) || wrong.img[at] == byteOf(after)
			err := m.CheckHalf(t.Context(), wrong.img, base, nil)
			var bad *NotHalfError
			if right != (err == nil) || !right && (!errors.As(err, &bad) || bad.Off != int64(at)/BlockSize*BlockSize) {
				t.Fatalf("seed %d: byte %d altered, which is one of the two: %v: %v", seed, at, right, err)
			}
			if right {
				missed++
			} else {
				found++
			}
			if _, err := m.CheckHalfBlind(t.Context(), wrong.img); err != nil {
				blind++
			}
			// If the check passes, the target can be completed to the right image.
			if err == nil {
				if _, err := m.WriteTo(t.Context(), wrong, ApplyOptions{}); err != nil || !bytes.Equal(wrong.img, after) {
					t.Fatalf("seed %d: byte %d altered: completed to something else (%v)", seed, at, err)
				}
			}
		}
	}
	if found < 150 || blind == 0 {
		t.Errorf("%d alterations found, %d without a base, %d were none", found, blind, missed)
	}
}

// A chain that cannot be read is an error, not a match.
func TestCheckHalfDamagedChain(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 32))
	h := newHistory(t, r, 3, 100000)
	bad := bytes.Clone(h.files[0])
	bad[len(bad)/2] ^= 1
	d, err := Open(bytes.NewReader(bad), int64(len(bad)))
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewMerge(Layer{h.deltas[1], 0})
	if err != nil {
		t.Fatal(err)
	}
	err = m.CheckHalf(context.Background(), h.states[0], []Layer{{d, 0}}, nil)
	if err == nil || errors.As(err, new(*NotHalfError)) {
		t.Errorf("damaged base: %v", err)
	}
}
