package cow

import (
	"bytes"
	"fmt"
	"testing"

	"cbt/internal/testimg"
	"cbt/sparse"
)

// disk is an origin with thick snapshots as they are explained to users: each snapshot has its own
// copy of all bytes. Besides, it keeps the stores that a kernel would.
type disk struct {
	origin []byte
	snaps  []*snap
	view   sparse.View // of the origin
}

type snap struct {
	d     *disk
	want  []byte // the content of the snapshot
	chunk int64
	cow   *testimg.Cow
	at    map[uint64]uint64 // chunk of the origin: chunk of the store
}

// newDisk returns a disk on which every 512 bytes contain their offset.
func newDisk(size int) *disk {
	d := &disk{origin: make([]byte, 0, size+512)}
	for i := 0; len(d.origin) < size; i++ {
		d.origin = fmt.Appendf(d.origin, "%-512s", fmt.Sprintf("origin %d", i))
	}
	d.origin = d.origin[:size]
	d.view = sparse.Plain(bytes.NewReader(d.origin), int64(size))
	return d
}

func (d *disk) snapshot(chunk int64) *snap {
	s := &snap{d, bytes.Clone(d.origin), chunk, testimg.NewCow(chunk), map[uint64]uint64{}}
	d.snaps = append(d.snaps, s)
	return s
}

// write writes to the origin.
func (d *disk) write(off int, p []byte) {
	for _, s := range d.snaps {
		s.except(int64(off), int64(len(p)))
	}
	copy(d.origin[off:], p)
}

func (s *snap) write(off int, p []byte) {
	s.except(int64(off), int64(len(p)))
	copy(s.want[off:], p)
	for c := uint64(int64(off) / s.chunk); int64(c)*s.chunk < int64(off+len(p)); c++ {
		lo := int64(c) * s.chunk
		copy(s.cow.Bytes()[int64(s.at[c])*s.chunk:][:s.chunk], s.want[lo:min(lo+s.chunk, int64(len(s.want)))])
	}
}

// except makes an exception of each chunk in the range that is not one yet. In the last chunk, the
// part past the end of the origin is not zero.
func (s *snap) except(off, n int64) {
	for c := uint64(off / s.chunk); int64(c)*s.chunk < off+n; c++ {
		if _, ok := s.at[c]; ok {
			continue
		}
		lo := int64(c) * s.chunk
		p := append([]byte(nil), s.d.origin[lo:min(lo+s.chunk, int64(len(s.d.origin)))]...)
		for int64(len(p)) < s.chunk {
			p = append(p, 0xee)
		}
		s.at[c] = s.cow.Put(c, p)
	}
}

// open opens the snapshot from its store.
func (s *snap) open(t testing.TB) *View {
	t.Helper()
	v, err := NewView(mustOpen(t, s.cow.Bytes()), s.d.view, int64(len(s.want)))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustOpen(t testing.TB, b []byte) *Store {
	t.Helper()
	s, err := openBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openBytes(b []byte) (*Store, error) {
	return Open(bytes.NewReader(b), int64(len(b)), Options{})
}
