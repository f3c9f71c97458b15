package fuzz

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"cbt/internal/testimg"
	"cbt/lvm/cow"
	"cbt/sparse"
)

// cowOrigin is the origin of every snapshot here, 48 KiB and 100 bytes.
var cowOrigin = bytes.Repeat([]byte("origin of the snapshot "), 2200)[:48<<10+100]

// cowStores are sound stores of snapshots of cowOrigin, with one and with
// several areas.
func cowStores() [][]byte {
	var all [][]byte
	for _, s := range []struct {
		chunk int64
		n     int
	}{{512, 0}, {512, 70}, {512, 32}, {4096, 9}, {16 << 10, 2}} {
		c := testimg.NewCow(s.chunk)
		chunks := (len(cowOrigin) + int(s.chunk) - 1) / int(s.chunk)
		for i := range s.n {
			c.Put(uint64(i*5%chunks), bytes.Repeat([]byte{byte(i + 1)}, int(s.chunk)-i))
		}
		all = append(all, c.Bytes())
	}
	return all
}

// openCow opens bytes as a store and checks that an error comes alone and says
// that they are to blame.
func openCow(t testing.TB, b []byte) *cow.Store {
	s, err := cow.Open(bytes.NewReader(b), int64(len(b)), cow.Options{})
	if (s == nil) == (err == nil) {
		t.Errorf("%v, %v", s, err)
	}
	if err != nil {
		wantFormat(t, err)
		return nil
	}
	return s
}

// FuzzCow opens any bytes as an exception store and does all that can be done
// with it.
func FuzzCow(f *testing.F) {
	for _, b := range cowStores() {
		f.Add(b, uint32(len(cowOrigin)))
		f.Add(b[:len(b)-1], uint32(1000))
	}
	f.Fuzz(func(t *testing.T, b []byte, size uint32) {
		s := openCow(t, b)
		if s == nil {
			return
		}
		if int64(s.Len())*s.ChunkSize() > int64(len(b)) {
			t.Errorf("%d records in %d bytes", s.Len(), len(b))
		}
		if err := s.Recheck(); err != nil {
			t.Errorf("Recheck of what did not change: %v", err)
		}
		walkExtents(t, sparse.Zeros(1<<50), cow.ChangedChunks(s, 1<<50, 0, 1<<50))
		for _, n := range []int64{int64(size), 1<<63 - 1} {
			v, err := cow.NewView(s, sparse.Zeros(n), n)
			if err != nil {
				wantFormat(t, err)
				continue
			}
			pos := int64(0)
			for _, e := range walkExtents(t, v, v.Extents(0, n)) {
				if e.Off != pos {
					t.Fatalf("Extents: %v after %d", e, pos)
				}
				pos = e.End()
				p := make([]byte, min(e.Len, 8<<10))
				if n, err := v.ReadAt(p, e.End()-int64(len(p))); n != len(p) || err != nil && err != io.EOF {
					t.Fatalf("the end of %v: %d of %d bytes, %v", e, n, len(p), err)
				}
				if e.Kind.ReadsZero() && !sparse.IsZero(p) {
					t.Fatalf("%v is not zero", e)
				}
			}
		}
	})
}

// FuzzCowChanged edits two stores over one origin and checks for all pairs of
// images that what Changed and Compare do not name is equal.
func FuzzCowChanged(f *testing.F) {
	stores := cowStores()
	for i := range stores {
		f.Add(uint8(i), uint8(i+1), []byte{}, []byte{}, uint16(0))
		f.Add(uint8(i), uint8(i+2), []byte("\x00\x00\x02\x00\x09\x00\x00\x00\x00\x00\x00\x00"), []byte{}, uint16(700))
	}
	origin := sparse.Plain(bytes.NewReader(cowOrigin), int64(len(cowOrigin)))
	f.Fuzz(func(t *testing.T, a, b uint8, aEdits, bEdits []byte, cut uint16) {
		images := []sparse.View{origin}
		for i, s := range []*cow.Store{openCow(t, patched(stores[int(a)%len(stores)], aEdits)), openCow(t, patched(stores[int(b)%len(stores)], bEdits))} {
			if s == nil {
				continue
			}
			v, err := cow.NewView(s, origin, origin.Size()-int64(i)*int64(cut%8192))
			if err != nil {
				wantFormat(t, err)
				continue
			}
			images = append(images, v)
		}
		for _, old := range images {
			for _, new := range images {
				if old != origin || new != origin {
					checkCow(t, old, new, cow.Changed)
					checkCow(t, old, new, cow.Compare)
				}
			}
		}
	})
}

func checkCow(t *testing.T, old, new sparse.View, changed func(old, new sparse.View, off, n int64) sparse.Seq) {
	p, q := make([]byte, old.Size()), make([]byte, new.Size())
	for v, p := range map[sparse.View][]byte{old: p, new: q} {
		if n, err := v.ReadAt(p, 0); n != len(p) || err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("%d of %d bytes, %v", n, len(p), err)
		}
	}
	if old == new {
		copy(p, q)
	}
	got := make([]byte, len(q))
	copy(got, p)
	for e, err := range changed(old, new, 0, max(old.Size(), new.Size())) {
		if err != nil {
			t.Fatal(err)
		}
		copy(got[e.Off:e.End()], q[e.Off:])
	}
	if !bytes.Equal(got, q) {
		t.Fatal("bytes differ that are not named")
	}
}
