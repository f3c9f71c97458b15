package qcow2

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cbt/internal/testtool"
	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// TestHistories makes random histories of an image, of an overlay over it and of one over that,
// with QEMU's tools. It compares every state that ever existed with the output of qemu-img convert
// from when it was made.
func TestHistories(t *testing.T) {
	testtool.Need(t, "qemu-img")
	testtool.Need(t, "qemu-io")
	first, n := histories(t)
	for seed := first; seed < first+n; seed++ {
		t.Run(fmt.Sprintf("seed%d", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			dir := t.TempDir()
			var layers []*history
			defer func() {
				if t.Failed() {
					for _, h := range layers {
						t.Logf("%s:\n%s", h.path, strings.Join(h.log, "\n"))
					}
				}
			}()
			for depth := range 1 + rnd.IntN(3) {
				layers = append(layers, newLayer(t, rnd, dir, depth, layers))
				for range 2 + rnd.IntN(6) {
					layers[depth].step()
				}
				checkHistory(t, layers)
				if t.Failed() {
					return
				}
			}
		})
	}
}

// newLayer starts an image over the last one, or over a raw file, or alone.
func newLayer(t *testing.T, rnd *rand.Rand, dir string, depth int, layers []*history) *history {
	name := fmt.Sprintf("layer%d.qcow2", depth)
	if depth > 0 {
		return newHistory(t, rnd, dir, name, layers[depth-1], "")
	}
	raw := ""
	if rnd.IntN(2) == 0 {
		raw = "base.raw"
		b := make([]byte, rnd.IntN(5<<20))
		for i := 0; i < len(b); i += 1 + rnd.IntN(300_000) {
			end := min(len(b), i+rnd.IntN(200_000))
			for ; i < end; i++ {
				b[i] = byte(i>>9) | 1
			}
		}
		if err := os.WriteFile(filepath.Join(dir, raw), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return newHistory(t, rnd, dir, name, nil, raw)
}

// state is one state of one layer, and its content.
type state struct {
	name   string
	v      *View
	want   []byte
	places []place
}

func checkHistory(t *testing.T, layers []*history) {
	t.Helper()
	top := mustOpen(t, layers[len(layers)-1].path)
	var all []state
	for img, i := top, len(layers)-1; ; i-- {
		all = append(all, statesOf(t, img, layers[i])...)
		if i == 0 {
			break
		}
		img = img.backing.(*View).img
	}
	for i, s := range all {
		if got := mustRead(t, s.v); !bytes.Equal(got, s.want) {
			t.Errorf("%s: content differs from byte %d on", s.name, mismatch(got, s.want))
			continue
		}
		if err := s.v.img.Recheck(s.v); err != nil {
			t.Errorf("%s: Recheck: %v", s.name, err)
		}
		if len(s.want) < 1<<20 || i == 0 && len(s.want) < 3<<20 {
			sparsetest.View(t, s.v, s.want)
		}
	}
	if t.Failed() {
		return
	}
	for i := range all {
		all[i].places = naivePlaces(t, all[i].v, all[i].v.Size())
		checkExtents(t, all[i], all[i].places)
	}
	related := 0
	for _, old := range all {
		for _, new := range all {
			if checkChanged(t, old, new) {
				related++
			}
		}
	}
	if related < len(all) {
		t.Errorf("%d states, but only %d related pairs", len(all), related)
	}
	checkRawBase(t, top, all[0])
	checkMap(t, top, layers[len(layers)-1])
}

func statesOf(t *testing.T, img *Image, h *history) []state {
	t.Helper()
	name := filepath.Base(h.path)
	all := []state{{name, img.Active(), h.active, nil}}
	for i, s := range img.Snapshots() {
		all = append(all, state{name + "@" + s.Name, mustSnapshot(t, img, i), h.states[s.Name], nil})
	}
	if len(all) != 1+len(h.states) {
		t.Errorf("%s: %d snapshots, want %d", name, len(all)-1, len(h.states))
	}
	return all
}

func mismatch(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// checkChanged checks what Changed promises, and reports whether the two are related.
func checkChanged(t *testing.T, old, new state) bool {
	t.Helper()
	size := int64(max(len(old.want), len(new.want)))
	seq := Changed(old.v, new.v, 0, size)
	all, err := sparse.Collect(seq)
	if errors.Is(err, sparse.ErrUnrelated) {
		return false
	}
	name := old.name + " -> " + new.name
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return true
	}
	checkUnnamedEqual(t, name, all, old.want, new.want)
	checkExactly(t, name, all, old.places, new.places, old.v.size, new.v.size)
	if old.v == new.v && len(all) > 0 {
		t.Errorf("%s: a state differs from itself: %v", name, all)
	}
	// A part of the range is the same part of the result.
	rnd := rand.New(rand.NewPCG(uint64(size), 2))
	for range 5 {
		lo := rnd.Int64N(size + 1)
		hi := lo + rnd.Int64N(size-lo+1)
		got, err := sparse.Collect(Changed(old.v, new.v, lo, hi-lo))
		want, _ := sparse.Collect(sparse.Clip(sparse.Of(all...), lo, hi-lo))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s in [%d,%d): %v, %v, want %v", name, lo, hi, got, err, want)
		}
	}
	return true
}

// checkUnnamedEqual checks that old and new are equal outside the extents, over the larger size. It
// also checks that the extents ascend inside new, and that their kinds do not lie about zeros.
func checkUnnamedEqual(t *testing.T, name string, all []sparse.Extent, old, new []byte) {
	t.Helper()
	size := max(len(old), len(new))
	a, b := append(bytes.Clone(old), make([]byte, size-len(old))...), append(bytes.Clone(new), make([]byte, size-len(new))...)
	pos := int64(0)
	for i, e := range all {
		if e.Len <= 0 || e.Off < pos || e.End() > int64(len(new)) || i > 0 && e.Off == pos && e.Kind == all[i-1].Kind {
			t.Errorf("%s: extent %v after %d in an image of %d bytes", name, e, pos, len(new))
			return
		}
		if e.Kind.ReadsZero() && !sparse.IsZero(new[e.Off:e.End()]) {
			t.Errorf("%s: %v is not zero", name, e)
		}
		copy(a[e.Off:e.End()], b[e.Off:e.End()])
		pos = e.End()
	}
	// Past the end of new there is nothing to name: it is known to be zeros.
	if at := mismatch(a[:len(new)], b[:len(new)]); at < len(new) {
		t.Errorf("%s: byte %d differs and is not named", name, at)
	}
}

// checkRawBase checks ChangedOver with the raw file below the chain.
func checkRawBase(t *testing.T, top *Image, s state) {
	t.Helper()
	base := top.backing
	for {
		v, ok := base.(*View)
		if !ok {
			break
		}
		base = v.img.backing
	}
	if base == nil {
		return
	}
	old := mustRead(t, base)
	all, err := sparse.Collect(s.v.ChangedOver(base, 0, int64(max(len(old), len(s.want)))))
	if err != nil {
		t.Errorf("ChangedOver the raw base: %v", err)
		return
	}
	checkUnnamedEqual(t, s.name+" over its raw base", all, old, s.want)
	checkExactly(t, s.name+" over its raw base", all, naivePlaces(t, base, base.Size()), s.places, base.Size(), s.v.size)
}

// checkMap compares Map of the active state with qemu-img map.
func checkMap(t *testing.T, img *Image, h *history) {
	t.Helper()
	type row struct {
		Start, Length int64
		Depth         int
		Present       bool
		Zero, Data    bool
		Offset        *int64
	}
	var rows []row
	if err := json.Unmarshal([]byte(h.tool("qemu-img", "map", "--output=json", h.path)), &rows); err != nil {
		t.Fatal(err)
	}
	var want []MapExtent
	for _, r := range rows {
		if r.Length == 0 { // what qemu-img prints for an image of 0 bytes
			continue
		}
		// Both zero and data: a hole below a preallocated cluster.
		m := MapExtent{r.Start, r.Length, r.Depth, r.Present, r.Zero && !r.Data, r.Data, false, false, -1}
		if r.Offset != nil {
			m.Offset = *r.Offset
		}
		if n := len(want); n > 0 && want[n-1].joins(m) {
			want[n-1].Length += m.Length
			continue
		}
		want = append(want, m)
	}
	var got []MapExtent
	for m, err := range img.Active().Map(0, h.size) {
		if err != nil {
			t.Errorf("Map: %v", err)
			return
		}
		m.Compressed = false // this qemu-img does not print it
		got = append(got, m)
	}
	if !slices.Equal(got, want) {
		i := 0
		for i < min(len(got), len(want)) && got[i] == want[i] {
			i++
		}
		t.Errorf("Map differs from row %d on:\ngot  %v\nwant %v", i, got[i:min(len(got), i+3)], want[i:min(len(want), i+3)])
	}
}
