package cbt

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"cbt/sparse"
)

// salvage collects the pieces of a damaged delta, compares them with what the whole one says, and
// counts the bytes of each kind.
func salvage(t *testing.T, damaged []byte, whole *Delta, states []img) (Salvaged, map[PieceKind]int64) {
	t.Helper()
	var said []map[int64]sparse.Kind // of each stream, by block
	for i := range whole.Header.Streams {
		blocks := map[int64]sparse.Kind{}
		for e, err := range whole.Extents(i) {
			if err != nil {
				t.Fatal(err)
			}
			for off := e.Off; off < e.End(); off += BlockSize {
				blocks[off] = e.Kind
			}
		}
		said = append(said, blocks)
	}
	count := map[PieceKind]int64{}
	stream, pos := 0, int64(0)
	var headed bool
	result, err := Salvage(context.Background(), bytes.NewReader(damaged), int64(len(damaged)), func(p Piece) error {
		if p.Stream != stream {
			stream, pos = p.Stream, 0
		}
		if p.Off < pos || p.Len <= 0 {
			t.Fatalf("piece at %d of stream %d behind %d", p.Off, p.Stream, pos)
		}
		headed = headed || p.Off > pos
		pos = p.Off + p.Len
		count[p.Kind] += p.Len
		m := states[p.Stream]
		if pos > m.Size() {
			t.Fatalf("piece up to %d of %d", pos, m.Size())
		}
		if p.Unsure {
			return nil
		}
		for off := p.Off; off < pos; off += BlockSize {
			kind, there := said[p.Stream][off]
			switch {
			case p.Kind == PieceUnchanged && there, p.Kind == PieceZero && kind != sparse.Zero, p.Kind == PieceData && (!there || kind != sparse.Data):
				t.Fatalf("state %d at %d of stream %d, where the delta says %v (%v)", p.Kind, off, p.Stream, kind, there)
			}
		}
		if p.Kind == PieceData && !bytes.Equal(p.Data, m[p.Off:pos]) {
			t.Fatalf("other bytes at %d of stream %d", p.Off, p.Stream)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if result.Header != nil {
		if headed {
			t.Fatal("pieces with gaps between them")
		}
		total := int64(0)
		for _, m := range states {
			total += m.Size()
		}
		if n := count[PieceData] + count[PieceZero] + count[PieceLost] + count[PieceUnchanged]; n != total {
			t.Fatalf("%d bytes in pieces of %d", n, total)
		}
	}
	return result, count
}

// patches is an increment with many chunks: noise and zeros in a large image.
func patches(t *testing.T, r *rand.Rand) ([]byte, *Delta, img) {
	old := make(img, 16<<20)
	m := bytes.Clone(old)
	for off := 0; off+300<<10 < len(m); off += 400 << 10 {
		for i := range 300 << 10 {
			m[off+i] = byte(r.Uint32())
		}
		clear(m[off : off+8192])
	}
	for i := range old {
		old[i] = 1
	}
	copy(old[300<<10:400<<10], m[300<<10:])
	src := Source{Old: old, New: img(m), Changed: changedIn(r, old, m)}
	b := mustWrite(t, Header{Version: Version, Consistency: Crash, Streams: []Stream{{Name: "disk/0", Size: img(m).Size(), To: "b", From: &Base{"a", old.Size()}}}}, []Source{src}, Options{})
	d, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return b, d, m
}

func TestSalvageOfWhatIsWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	b, d, m := patches(t, r)
	want := d.Totals()[0]
	for _, cut := range []int{0, 1, trailerSize} { // without a trailer the frames are walked
		s, n := salvage(t, b[:len(b)-cut], d, []img{m})
		if s.Index != (cut == 0) || !s.Whole || s.Skipped != 0 || n[PieceLost] != 0 || n[PieceData] != want.Data || n[PieceZero] != want.Zero || s.Chunks != int64(d.root.chunks) {
			t.Errorf("cut %d: %+v %v, want %+v", cut, s, n, want)
		}
	}
	several := severalStreams(t)
	whole, err := Open(bytes.NewReader(several), int64(len(several)))
	if err != nil {
		t.Fatal(err)
	}
	var states []img
	for i := range 4 {
		states = append(states, bytes.Repeat([]byte{byte(i), 0, 'x'}, 3000*i))
	}
	if _, n := salvage(t, several, whole, states); n[PieceLost] != 0 {
		t.Error(n)
	}
	for cut := range several {
		salvage(t, several[:cut], whole, states)
	}
}

// TestSalvageOfDamage destroys parts of a delta. What is called sure must be right, and not much
// more may be lost than was destroyed.
func TestSalvageOfDamage(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	b, d, m := patches(t, r)
	want := d.Totals()[0]
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	for round := range rounds {
		bad := bytes.Clone(b)
		holes := 1 + r.IntN(3)
		for range holes {
			off := r.IntN(len(bad))
			if ref, err := d.ref(r.Uint64N(d.root.chunks)); err == nil && r.IntN(2) == 0 { // tables are small
				off = int(ref.off) + r.IntN(ref.tableLen)
			}
			n := min(len(bad)-off, 1+r.IntN(1<<r.IntN(17)))
			for i := range n {
				bad[off+i] = byte(r.Uint32())
			}
		}
		what := "holes"
		switch round % 4 {
		case 1: // without its end
			bad, what = bad[:len(bad)-200], "holes, no index"
		case 2: // bytes are gone
			off := r.IntN(len(bad) / 2)
			bad, what = append(bad[:off:off], bad[off+1+r.IntN(5000):]...), "holes, shifted"
		case 3: // without its beginning and its end
			bad, what = bad[500:len(bad)-500], "holes, neither header nor index"
		}
		s, n := salvage(t, bad, d, []img{m})
		// A hole spoils the chunk in which it begins and those into which it reaches.
		if least := want.Data - int64(holes+2)*2*maxPayload; n[PieceData] < least {
			t.Errorf("round %d, %s: %d of %d bytes salvaged, want %d: %+v", round, what, n[PieceData], want.Data, least, s)
		}
	}
}

// TestSalvageOfADiskThatHoldsADelta: chunks of the delta on the disk are not taken for chunks of
// the disk's own delta.
func TestSalvageOfADiskThatHoldsADelta(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	var inner []byte
	streams := func(size int) ([]byte, []img) {
		h := Header{Version: Version, Consistency: Crash}
		var src []Source
		var states []img
		for i := range 40 {
			m := make(img, size)
			for k := range m {
				m[k] = byte(r.Uint32())
			}
			h.Streams = append(h.Streams, Stream{Name: "disk/" + point(i), Size: m.Size(), To: point(i), Full: true})
			src, states = append(src, Source{New: m}), append(states, m)
		}
		if size > 64<<10 { // the other delta has small chunks, so that many fit into one of this
			copy(states[5][4096:], inner)
		}
		return mustWrite(t, h, src, Options{}), states
	}
	inner, _ = streams(16 << 10)
	b, states := streams(1 << 20)
	d, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	unsure := false
	for chunk := range uint64(12) {
		ref, err := d.ref(chunk)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(b[:len(b)-200])
		clear(bad[ref.off : ref.off+int64(ref.tableLen)+100])
		s, n := salvage(t, bad, d, states)
		if n[PieceData] < 30<<20 {
			t.Errorf("chunk %d: %+v %v", chunk, s, n)
		}
		// Where what follows is gone, only being unsure tells them apart.
		bad = bad[:ref.off+(400<<10)]
		salvage(t, bad, d, states)
		Salvage(context.Background(), bytes.NewReader(bad), int64(len(bad)), func(p Piece) error {
			unsure = unsure || p.Unsure && p.Kind == PieceData && !bytes.Equal(p.Data, states[p.Stream][p.Off:p.Off+p.Len])
			return nil
		})
	}
	if !unsure {
		t.Error("no chunk of the delta on the disk was found: this tests nothing")
	}
}

func TestSeqOf(t *testing.T) {
	for _, seq := range []uint64{0, 1, 255, 65536, 1<<32 - 1} {
		b := sealFrame(append(beginFrame(nil, tableFrame), "a body"...), seq)
		if got := seqOf(b); got != seq {
			t.Errorf("%d, want %d", got, seq)
		}
	}
}
