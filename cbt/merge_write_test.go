package cbt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cbt/sparse"
)

// mustMerge merges a line of deltas and opens the result.
func mustMerge(t *testing.T, opt Options, deltas ...*Delta) (*Delta, []byte) {
	t.Helper()
	line, err := InOrder(deltas)
	if err != nil {
		t.Fatal(err)
	}
	h, merges, err := Merged(line)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	sum, err := WriteMerges(context.Background(), &b, h, merges, opt)
	if err != nil {
		t.Fatal(err)
	}
	_, again, err := Verify(context.Background(), bytes.NewReader(b.Bytes()), VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(sum) != fmt.Sprint(again) {
		t.Fatalf("written %v, verified %v", sum, again)
	}
	d, err := Open(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	return d, b.Bytes()
}

// applied applies one delta of one stream to the state before it.
func applied(t *testing.T, d *Delta, stream int, before img) (img, ApplyStats) {
	t.Helper()
	m, err := NewMerge(Layer{d, stream})
	if err != nil {
		t.Fatal(err)
	}
	tg := &target{img: bytes.Clone(before)}
	st, err := m.CheckBase(context.Background(), tg, ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, m, tg, ApplyOptions{})
	return tg.img, st
}

func TestMergeIsItsPartsInTurn(t *testing.T) {
	for seed := range uint64(80) {
		r := rand.New(rand.NewPCG(seed, 21))
		h := newHistory(t, r, 3+r.IntN(6), r.IntN(200000))
		from := r.IntN(len(h.states) - 1)
		to := from + 1 + r.IntN(len(h.states)-1-from)
		parts := slices.Clone(h.deltas[from+1 : to+1])
		r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		d, _ := mustMerge(t, Options{Workers: 1 + r.IntN(3)}, parts...)

		once, _ := applied(t, d, 0, h.states[from])
		if !bytes.Equal(once, h.states[to]) {
			t.Fatalf("seed %d: the merge of %d to %d is not what they lead to", seed, from+1, to)
		}
		sizes := h.states[from : to+1]
		keptChecks(t, d, h.deltas[from+1:to+1], slices.IsSortedFunc(sizes, func(a, b img) int { return len(a) - len(b) }))

		// Through a chain too, whichever part is merged first.
		full, _ := mustMerge(t, Options{}, h.deltas[:from+1]...)
		both, b := mustMerge(t, Options{Workers: 2}, full, d)
		_, all := mustMerge(t, Options{Workers: 5}, h.deltas[:to+1]...)
		if !both.Header.Streams[0].Full {
			t.Fatalf("seed %d: the merge with a full delta is none", seed)
		}
		for _, layers := range [][]*Delta{{full, d}, {both}} {
			stack, err := NewStack(layersOf(layers)...)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, stack.Size())
			if _, err := sparse.ReadFull(stack, got, 0); err != nil || !bytes.Equal(got, h.states[to]) {
				t.Fatalf("seed %d: a chain of %d merges leads elsewhere (%v)", seed, len(layers), err)
			}
		}
		if !bytes.Equal(b, all) {
			t.Fatalf("seed %d: merging in two steps and in one gives other bytes", seed)
		}
		covered(t, d)
	}
}

// keptChecks compares which blocks of a merge are checked with what the first part that has the
// block says. If the image shrank on the way a check may be lost, because less of its block was
// looked at than there is now.
func keptChecks(t *testing.T, d *Delta, parts []*Delta, grows bool) {
	t.Helper()
	first := map[int64]bool{}
	for _, l := range slices.Backward(parts) {
		for block, checked := range checkedBlocks(t, l) {
			first[block] = checked
		}
	}
	zero := map[int64]bool{}
	for e, err := range d.Extents(0) {
		if err != nil {
			t.Fatal(err)
		}
		for off := e.Off; off < e.End(); off += BlockSize {
			zero[off] = e.Kind == sparse.Zero
		}
	}
	for block, checked := range checkedBlocks(t, d) {
		if want := first[block] && !zero[block]; checked && !want || grows && checked != want {
			t.Fatalf("the block at %d is checked: %v, in the first part that has it: %v", block, checked, want)
		}
	}
}

func checkedBlocks(t *testing.T, d *Delta) map[int64]bool {
	blocks := map[int64]bool{}
	for p, err := range d.parts(0, 0, d.Header.Streams[0].Size) {
		if err != nil {
			t.Fatal(err)
		}
		for off := p.off; off < p.end(); off += BlockSize {
			blocks[off] = p.checked
		}
	}
	return blocks
}

// covered fails if a delta names a byte twice.
func covered(t *testing.T, d *Delta) {
	t.Helper()
	for i := range d.Header.Streams {
		pos := int64(0)
		for p, err := range d.parts(i, 0, d.Header.Streams[i].Size) {
			if err != nil {
				t.Fatal(err)
			}
			if p.off < pos {
				t.Fatalf("stream %d: offset %d is named twice", i, p.off)
			}
			pos = p.end()
		}
	}
}

// A merge of one delta is that delta: the writer's rules hold.
func TestMergeOfOne(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 22))
		h := newHistory(t, r, 3, 50000+r.IntN(3000000))
		for i, d := range h.deltas {
			if _, b := mustMerge(t, Options{Workers: 1 + r.IntN(4)}, d); !bytes.Equal(b, h.files[i]) {
				t.Fatalf("seed %d: the merge of delta %d alone is another", seed, i)
			}
		}
	}
}

// More than one window, with more than one chunk in each: the bytes are the same with any number of
// workers.
func TestMergeDoesNotDependOnWorkers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 23))
	h := newHistory(t, r, 8, 20<<20)
	var first []byte
	for _, workers := range []int{1, 2, 7, 16} {
		_, b := mustMerge(t, Options{Workers: workers}, h.deltas...)
		if first == nil {
			first = b
		}
		if !bytes.Equal(b, first) {
			t.Fatalf("%d workers write other bytes", workers)
		}
	}
}

// The checks that were kept find a wrong base: each wrong byte that a checked block of the merge
// replaces.
func TestMergeKeepsTheOldestChecks(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 24))
	base := newImg(r, 60000)
	for i := range base {
		base[i] = byte(r.Uint32()) | 1
	}
	mid, last := img(bytes.Clone(base)), img(nil)
	mid[5000], mid[30000] = 0, 0
	last = img(bytes.Clone(mid))
	last[5001], last[50000] = 0, 0
	write := func(from, to string, old, now img) *Delta {
		h := Header{Version: Version, Consistency: Crash, Streams: []Stream{{Name: "disk/0", Size: now.Size(), To: to, From: &Base{from, old.Size()}}}}
		b := mustWrite(t, h, []Source{{Old: old, New: now, Changed: now.Extents(0, now.Size())}}, Options{})
		d, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d, _ := mustMerge(t, Options{}, write("b", "c", mid, last), write("a", "b", base, mid))
	if n := d.Totals()[0]; n.Checked != 3*BlockSize || n.Data != 3*BlockSize {
		t.Fatalf("%+v", n)
	}
	m, err := NewMerge(Layer{d, 0})
	if err != nil {
		t.Fatal(err)
	}
	for off := range base {
		wrong := bytes.Clone(base)
		wrong[off] ^= 0x40
		_, err := m.CheckBase(context.Background(), &target{img: wrong}, ApplyOptions{})
		block := off / BlockSize * BlockSize
		touched := block == 4096 || block == 30000/BlockSize*BlockSize || block == 50000/BlockSize*BlockSize
		if mismatch := (*BaseMismatchError)(nil); touched != errors.As(err, &mismatch) {
			t.Fatalf("byte %d wrong: %v", off, err)
		}
	}
}

// Streams come, go, and become full: each follows its own path back.
func TestMergeOfStreams(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 25))
	states := map[string][]img{}
	var deltas []*Delta
	for i := range 4 {
		h := Header{Version: Version, Consistency: Crash}
		var src []Source
		add := func(name string, from int, full bool) {
			m := newImg(r, 20000+r.IntN(90000))
			if list := states[name]; len(list) > 0 {
				m = list[len(list)-1].resized(r)
				m.scribble(r, 3)
			}
			s := Stream{Name: name, Size: m.Size(), To: fmt.Sprintf("%s:%d", name, i), Full: full || i == from}
			source := Source{New: m}
			if !s.Full {
				old := states[name][len(states[name])-1]
				s.From = &Base{fmt.Sprintf("%s:%d", name, i-1), old.Size()}
				source.Old, source.Changed = old, changedIn(r, old, m)
			}
			h.Streams = append(h.Streams, s)
			src = append(src, source)
			states[name] = append(states[name], bytes.Clone(m))
		}
		add("disk/a", 0, false)
		if i < 3 {
			add("disk/gone", 0, false)
		}
		if i >= 2 {
			add("disk/late", 2, false)
		}
		add("ram/pc.ram", 1, i == 0)
		add("vmstate", 0, true)
		b := mustWrite(t, h, src, Options{})
		d, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		deltas = append(deltas, d)
	}
	d, _ := mustMerge(t, Options{}, deltas[3], deltas[1], deltas[2])
	want := map[string]bool{"disk/a": false, "disk/late": true, "ram/pc.ram": true, "vmstate": true}
	if len(d.Header.Streams) != len(want) {
		t.Fatalf("%+v", d.Header.Streams)
	}
	for i, s := range d.Header.Streams {
		if full, ok := want[s.Name]; !ok || s.Full != full {
			t.Errorf("%s: full %v", s.Name, s.Full)
		}
		list := states[s.Name]
		var before img
		if !s.Full {
			before = list[0]
		}
		if got, _ := applied(t, d, i, before); !bytes.Equal(got, list[len(list)-1]) {
			t.Errorf("%s is not what it was", s.Name)
		}
	}
}

func TestLineErrors(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 26))
	h := newHistory(t, r, 5, 30000)
	other := newHistory(t, r, 2, 30000)
	tip := func(i int) *Delta {
		d := *h.deltas[i]
		d.Header.Streams = slices.Clone(d.Header.Streams)
		d.Header.Streams[0].To = ""
		return &d
	}
	branch := func(i int, to string) *Delta {
		d := *h.deltas[i]
		d.Header.Streams = slices.Clone(d.Header.Streams)
		d.Header.Streams[0].To = to
		return &d
	}
	size := *h.deltas[2]
	size.Header.Streams = slices.Clone(size.Header.Streams)
	size.Header.Streams[0].From = &Base{size.Header.Streams[0].From.Point, 12}
	d := h.deltas
	for name, bad := range map[string]struct {
		deltas []*Delta
		want   string
	}{
		"gap":         {[]*Delta{d[1], d[3]}, "none of the deltas leads there"},
		"far gap":     {[]*Delta{d[4], d[1], d[2]}, "none of the deltas leads there"},
		"fork":        {[]*Delta{d[1], d[2], branch(2, "x")}, "branches"},
		"twice":       {[]*Delta{d[1], d[2], d[2]}, "both lead to"},
		"two fulls":   {[]*Delta{d[0], other.deltas[0], d[1]}, "both lead to"},
		"full before": {[]*Delta{d[2], branch(0, "y")}, "but is at y, and none"},
		"only fulls":  {[]*Delta{branch(0, "y"), d[0]}, "both are full"},
		"tip first":   {[]*Delta{tip(1), d[2]}, "none: not frozen"},
		"size":        {[]*Delta{d[1], &size}, "must have 12 bytes"},
		"circle":      {[]*Delta{d[2], d[3], branch(1, point(3))}, "both lead to"},
	} {
		var line *OrderError
		if _, err := InOrder(bad.deltas); !errors.As(err, &line) || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v", name, err)
		} else if line.A == nil || line.B == nil {
			t.Errorf("%s: names %v and %v", name, line.A, line.B)
		}
	}
	if _, err := InOrder([]*Delta{d[2], d[3], branch(4, "z"), d[1]}); err != nil {
		t.Error(err)
	}
}

// What merging writes stays the same from version to version.
func TestMergeIsStable(t *testing.T) {
	var deltas []*Delta
	for _, b := range smallChain(t) {
		d, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		deltas = append(deltas, d)
	}
	_, b := mustMerge(t, Options{}, deltas...)
	if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != mergedSum {
		t.Errorf("the merge of the small chain has SHA-256 %s", got)
	}
}

const mergedSum = "1e0456623b1acdc878e430091e22a4072c60ed82ecb8dd232f60da2e114aa967"

// A block that grew past the base's end and was then cut: more of it was looked at than there is
// now.
func TestMergeOfABlockThatIsCut(t *testing.T) {
	base := img(bytes.Repeat([]byte{7}, 5000))
	states := []img{base, append(bytes.Clone(base), bytes.Repeat([]byte{8}, 3000)...), append(bytes.Clone(base), bytes.Repeat([]byte{8}, 1000)...)}
	states[1][4999], states[2][4999] = 9, 9
	var deltas []*Delta
	for i := 1; i < 3; i++ {
		old, now := states[i-1], states[i]
		h := Header{Version: Version, Consistency: Crash, Streams: []Stream{{Name: "disk/0", Size: now.Size(), To: point(i), From: &Base{point(i - 1), old.Size()}}}}
		b := mustWrite(t, h, []Source{{Old: old, New: now, Changed: now.Extents(0, now.Size())}}, Options{})
		d, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		deltas = append(deltas, d)
	}
	d, _ := mustMerge(t, Options{}, deltas...)
	if got, st := applied(t, d, 0, base); !bytes.Equal(got, states[2]) || st.Checked != 0 {
		t.Fatalf("%d bytes checked, %v", st.Checked, bytes.Equal(got, states[2]))
	}
}
