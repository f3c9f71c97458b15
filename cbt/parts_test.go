package cbt

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"cbt/sparse"
)

// wholeBlocks against a model that looks at every byte.
func TestWholeBlocksModel(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 2))
		size := int64(r.IntN(6 * BlockSize))
		touched, data := make([]bool, size), make([]bool, size)
		var in []sparse.Extent
		for pos := int64(0); pos < size; {
			pos += int64(r.IntN(2)) * int64(r.IntN(3000))
			n := min(size-pos, 1+int64(r.IntN(9000)))
			if r.IntN(2) == 0 {
				pos, n = pos&^511, n&^511
			}
			if last := len(in) - 1; last >= 0 && pos < in[last].End() {
				pos = in[last].End()
			}
			if n = min(n, size-pos); n <= 0 {
				break
			}
			e := sparse.Extent{Off: pos, Len: n, Kind: sparse.Kind(1 + r.IntN(3))}
			in = append(in, e)
			for i := e.Off; i < e.End(); i++ {
				touched[i], data[i] = true, e.Kind == sparse.Data
			}
			pos = e.End()
		}
		out, err := sparse.Collect(wholeBlocks(sparse.Of(in...), size))
		if err != nil {
			t.Fatal(err)
		}
		kind := make([]sparse.Kind, size)
		pos := int64(0)
		for _, e := range out {
			if e.Off < pos || e.Len <= 0 || e.Off%BlockSize != 0 || e.End()%BlockSize != 0 && e.End() != size || e.Kind == sparse.Hole {
				t.Fatalf("seed %d: bad extent %v", seed, e)
			}
			for pos = e.Off; pos < e.End(); pos++ {
				kind[pos] = e.Kind
			}
		}
		for b := int64(0); b < size; b += BlockSize {
			any, all, zero := false, true, true
			for i := b; i < min(b+BlockSize, size); i++ {
				any, all, zero = any || touched[i], all && touched[i], zero && touched[i] && !data[i]
			}
			switch got := kind[b]; {
			case !any && got != 0:
				t.Fatalf("seed %d: untouched block at %d is %v", seed, b, got)
			case any && got == 0:
				t.Fatalf("seed %d: touched block at %d is missing", seed, b)
			case got == sparse.Zero && !zero:
				t.Fatalf("seed %d: block at %d is zero, but not all of it was (all: %v)", seed, b, all)
			}
		}
	}
}

// A zero extent that covers whole blocks must not be read.
func TestWholeBlocksKeepZeros(t *testing.T) {
	got, err := sparse.Collect(wholeBlocks(sparse.Of(sparse.Extent{Off: 100, Len: 5 * BlockSize, Kind: sparse.Hole}), 1<<40))
	want := []sparse.Extent{
		{Off: 0, Len: BlockSize, Kind: sparse.Data},
		{Off: BlockSize, Len: 4 * BlockSize, Kind: sparse.Zero},
		{Off: 5 * BlockSize, Len: BlockSize, Kind: sparse.Data},
	}
	if err != nil || len(got) != len(want) || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Fatalf("%v, %v", got, err)
	}
}

func TestCheckBaseFindsEveryOverwrittenByte(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 8))
	old := newImg(r, 100000)
	for i := range old {
		old[i] = byte(r.Uint32())
	}
	m := img(bytes.Clone(old))
	for off := 5000; off < 90000; off += 20000 {
		m[off] ^= 1
	}
	h := Header{Version: Version, Consistency: Crash, Streams: []Stream{{Name: "disk/0", Size: m.Size(), To: "b", From: &Base{"a", old.Size()}}}}
	b := mustWrite(t, h, []Source{{Old: old, New: m, Changed: m.Extents(0, m.Size())}}, Options{})
	d, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	merge, err := NewMerge(Layer{d, 0})
	if err != nil {
		t.Fatal(err)
	}
	touched := map[int]bool{}
	for e, err := range d.Extents(0) {
		if err != nil {
			t.Fatal(err)
		}
		for i := e.Off; i < e.End(); i++ {
			touched[int(i)] = true
		}
	}
	if len(touched) != 5*BlockSize {
		t.Fatalf("the delta touches %d bytes", len(touched))
	}
	for off := 0; off < len(old); off += 97 {
		wrong := img(bytes.Clone(old))
		wrong[off] ^= 0x10
		tg := &target{img: wrong}
		_, err := merge.CheckBase(context.Background(), tg, ApplyOptions{})
		var mismatch *BaseMismatchError
		if touched[off] != errors.As(err, &mismatch) || touched[off] && mismatch.Off != int64(off/BlockSize*BlockSize) || tg.writes.Load() != 0 {
			t.Fatalf("byte %d wrong (overwritten: %v): %v", off, touched[off], err)
		}
	}
}

func TestSpotCheckFindsALie(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	old := newImg(r, 3<<20)
	for i := range old {
		old[i] = byte(r.Uint32()) | 1
	}
	m := img(bytes.Clone(old))
	m[1<<20] ^= 1 // named
	m[2<<20] ^= 1 // not named
	changed := func(off, n int64) sparse.Seq {
		return sparse.Clip(sparse.Of(sparse.Extent{Off: 1 << 20, Len: 65536, Kind: sparse.Data}), off, n)
	}
	n, err := SpotCheck(context.Background(), old, m, changed, 64<<20)
	var lie *SpotCheckError
	if !errors.As(err, &lie) || lie.Off != 2<<20 {
		t.Fatalf("%d compared, %v", n, err)
	}
	m[2<<20] ^= 1
	if n, err = SpotCheck(context.Background(), old, m, changed, 64<<20); err != nil || n != 3<<20-65536 {
		t.Fatalf("%d compared, %v", n, err)
	}
	// A sample of a larger image compares no place twice.
	if n, err = SpotCheck(context.Background(), old, m, changed, 1<<20); err != nil || n == 0 || n > 1<<20+spotSize {
		t.Fatalf("%d compared, %v", n, err)
	}
}

func TestWrongLinks(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	h := newHistory(t, r, 4, 20000)
	l := layersOf(h.deltas)
	for name, bad := range map[string][]Layer{
		"gap": {l[0], l[2]}, "swapped": {l[0], l[2], l[1]}, "repeated": {l[0], l[1], l[1]}, "no full": {l[1], l[2]}, "two fulls": {l[0], l[0]}, "none": nil,
	} {
		if _, err := NewStack(bad...); err == nil {
			t.Errorf("%s: stacked", name)
		}
	}
	if _, err := Chain(h.deltas[3], 0, []*Delta{h.deltas[0], h.deltas[2], h.deltas[3]}); err == nil {
		t.Error("a chain with a gap was found")
	} else if missing := (*MissingError)(nil); !errors.As(err, &missing) || missing.Point != point(1) {
		t.Errorf("missing: %v", err)
	}
}

func TestHeaderValidation(t *testing.T) {
	good := func() Header {
		return Header{Version: 1, Consistency: Crash, Streams: []Stream{{Name: "disk/0", Size: 1, Full: true, To: "x"}}}
	}
	h := good()
	if err := h.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Header){
		"version":            func(h *Header) { h.Version = 2 },
		"consistency":        func(h *Header) { h.Consistency = "perhaps" },
		"no streams":         func(h *Header) { h.Streams = nil },
		"too many":           func(h *Header) { h.Streams = make([]Stream, maxStreams+1) },
		"twice":              func(h *Header) { h.Streams = append(h.Streams, h.Streams[0]) },
		"name":               func(h *Header) { h.Streams[0].Name = "disc/0" },
		"empty disk":         func(h *Header) { h.Streams[0].Name = "disk/" },
		"control in name":    func(h *Header) { h.Streams[0].Name = "disk/a\nb" },
		"no UTF-8":           func(h *Header) { h.Streams[0].Name = "disk/\xff" },
		"negative size":      func(h *Header) { h.Streams[0].Size = -1 },
		"full with from":     func(h *Header) { h.Streams[0].From = &Base{} },
		"neither":            func(h *Header) { h.Streams[0].Full = false },
		"space in point":     func(h *Header) { h.Streams[0].To = "a b" },
		"negative from size": func(h *Header) { h.Streams[0].Full, h.Streams[0].From = false, &Base{"a", -1} },
	} {
		h := good()
		change(&h)
		var format *sparse.FormatError
		if err := h.Validate(); !errors.As(err, &format) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h = good()
	h.Required = []string{"encryption"}
	var unknown *UnknownFeatureError
	if err := h.Validate(); !errors.As(err, &unknown) || unknown.Names[0] != "encryption" {
		t.Errorf("required feature: %v", err)
	}
}

// A delta with right checksums may still leave out what it must cover. Reads at random offsets must
// not invent zeros for that.
func TestUncoveredBytesAreNotZeros(t *testing.T) {
	for name, c := range map[string]struct {
		stream  Stream
		extents []extent
		bad     int64 // a byte that must not be read
	}{
		"full, nothing":   {Stream{Name: "disk/0", Size: 5000, Full: true, To: "x"}, nil, 0},
		"full, no end":    {Stream{Name: "disk/0", Size: 20000, Full: true, To: "x"}, []extent{{off: 0, n: 8192, zero: true}}, 9000},
		"full, a gap":     {Stream{Name: "disk/0", Size: 12288, Full: true, To: "x"}, []extent{{off: 0, n: 4096, zero: true}, {off: 8192, n: 4096, zero: true}}, 5000},
		"growth, nothing": {Stream{Name: "disk/0", Size: 20000, From: &Base{"x", 8192}}, nil, 8192},
		"growth, no end":  {Stream{Name: "disk/0", Size: 20000, From: &Base{"x", 8192}}, []extent{{off: 8192, n: 4096, zero: true}}, 19999},
	} {
		var b bytes.Buffer
		w, err := newWriter(&b, Header{Version: Version, Consistency: Crash, Streams: []Stream{c.stream}})
		if err != nil {
			t.Fatal(err)
		}
		w.order.streams = []Stream{{From: &Base{Size: 1 << 40}}} // so that the writer does not refuse it
		for _, e := range c.extents {
			if err := w.chunk(&table{extents: []extent{e}}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.close(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Verify(context.Background(), bytes.NewReader(b.Bytes()), VerifyOptions{}); err == nil {
			t.Errorf("%s: verified", name)
		}
		d, err := Open(bytes.NewReader(b.Bytes()), int64(b.Len()))
		if err != nil {
			t.Fatal(err)
		}
		layers := []Layer{{d, 0}}
		if !c.stream.Full {
			base := mustWrite(t, Header{Version: Version, Consistency: Crash, Streams: []Stream{{Name: "disk/0", Size: 8192, Full: true, To: "x"}}}, []Source{{New: make(img, 8192)}}, Options{})
			full, err := Open(bytes.NewReader(base), int64(len(base)))
			if err != nil {
				t.Fatal(err)
			}
			layers = []Layer{{full, 0}, {d, 0}}
		}
		s, err := NewStack(layers...)
		if err != nil {
			t.Fatal(err)
		}
		var format *sparse.FormatError
		if n, err := s.ReadAt(make([]byte, 1), c.bad); !errors.As(err, &format) {
			t.Errorf("%s: read %d bytes, %v", name, n, err)
		}
		if _, err := sparse.Collect(s.Extents(0, s.Size())); !errors.As(err, &format) {
			t.Errorf("%s: extents: %v", name, err)
		}
	}
}

// The last block of a base that grows is checked as a whole.
func TestCheckBaseFindsTheLastBlockOfAGrowingBase(t *testing.T) {
	old := img(bytes.Repeat([]byte{7}, 5000))
	m := img(bytes.Repeat([]byte{9}, 9000))
	copy(m, old[:4500])
	h := Header{Version: Version, Consistency: Crash, Streams: []Stream{{Name: "disk/0", Size: m.Size(), To: "b", From: &Base{"a", old.Size()}}}}
	b := mustWrite(t, h, []Source{{Old: old, New: m, Changed: m.Extents(0, m.Size())}}, Options{})
	d, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	merge, err := NewMerge(Layer{d, 0})
	if err != nil {
		t.Fatal(err)
	}
	st, err := merge.CheckBase(context.Background(), &target{img: old}, ApplyOptions{})
	if err != nil || st.Read != 5000-BlockSize {
		t.Fatalf("%+v, %v", st, err)
	}
	old[4999] ^= 1
	var mismatch *BaseMismatchError
	if _, err := merge.CheckBase(context.Background(), &target{img: old}, ApplyOptions{}); !errors.As(err, &mismatch) {
		t.Fatalf("byte 4999 differs: %v", err)
	}
}
