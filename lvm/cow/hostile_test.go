package cow

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"cbt/internal/testimg"
	"cbt/sparse"
)

// wantRefused checks that a store is refused with a FormatError that contains text.
func wantRefused(t *testing.T, b []byte, text string) {
	t.Helper()
	s, err := openBytes(b)
	wantFormatError(t, err, text)
	if s != nil {
		t.Error("a store and an error")
	}
}

func wantFormatError(t *testing.T, err error, text string) {
	t.Helper()
	var bad *sparse.FormatError
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v, want a FormatError with %q", err, text)
	}
}

// TestHazardHeader: sizes that are not those of a chunk, versions, stores that are void.
func TestHazardHeader(t *testing.T) {
	for _, c := range []struct {
		at    int
		value uint32
		text  string
		cause error
	}{
		{0, 0, "magic 0x0: no store", ErrUninitialized},
		{0, 0x70416e54, "magic 0x70416e54: not 0x70416e53", nil},
		{4, 0, "valid 0x0", ErrInvalidated},
		{4, 2, "valid 0x2", nil},
		{8, 0, "version 0x0", nil},
		{8, 2, "version 0x2", nil},
		{12, 0, "chunk_size 0x0: not a power of two", nil},
		{12, 9, "not a power of two", nil},
		{12, 1<<31 - 8, "not a power of two", nil},
		{12, math.MaxUint32, "not a power of two", nil},
		{12, 1 << 22, "more than 2097152 sectors", nil},
		{12, 1 << 31, "more than 2097152 sectors", nil},
		{12, 1 << 21, "do not fit in a store", nil},
		{12, 16, "do not fit in a store of 12288 bytes", nil},
	} {
		s := testimg.NewCow(4096)
		s.Put(0, nil)
		b := s.Bytes()
		binary.LittleEndian.PutUint32(b[c.at:], c.value)
		wantRefused(t, b, c.text)
		if _, err := openBytes(b); c.cause != nil && !errors.Is(err, c.cause) {
			t.Errorf("%v is not %v", err, c.cause)
		}
	}
	// The largest chunks cost no memory.
	for sectors := uint32(1); sectors <= maxChunkSectors; sectors *= 2 {
		head := make([]byte, 16)
		copy(head, "SnAp\x01\x00\x00\x00\x01\x00\x00\x00")
		binary.LittleEndian.PutUint32(head[12:], sectors)
		size := int64(sectors) * 512 * 2
		s, err := Open(sparse.Resize(sparse.Plain(bytes.NewReader(head), 16), size), size, Options{})
		if err != nil || s.ChunkSize() != size/2 || s.Len() != 0 {
			t.Errorf("chunks of %d sectors: %v", sectors, err)
		}
	}
}

// TestHazardRecords: chunks that do not exist, are not free, or are named twice.
func TestHazardRecords(t *testing.T) {
	const E = 256
	for name, c := range map[string]struct {
		old, new uint64
		text     string
	}{
		"beyond the store":           {5, 13, "new_chunk 0xd: not inside the store of 13 chunks"},
		"far beyond the store":       {5, 1 << 54, "not inside the store"},
		"2^56":                       {5, 1 << 56, "not inside the store"},
		"2^64-1":                     {5, math.MaxUint64, "not inside the store"},
		"its own area":               {5, 1, "new_chunk 0x1: the place of area 0"},
		"new chunk twice":            {5, 2, "new_chunk 0x2: two records have it"},
		"last new chunk twice":       {5, 11, "new_chunk 0xb: two records have it"},
		"old chunk twice":            {103, 12, "old_chunk 0x67: two records have it"},
		"old chunk inside a run":     {204, 12, "old_chunk 0xcc: two records have it"},
		"old chunk past any origin":  {math.MaxInt64 / 4096, 12, "beyond the end of any origin"},
		"old chunk past 2^63":        {math.MaxUint64, 12, "beyond the end of any origin"},
		"old chunk times chunk wrap": {1 << 52, 12, "beyond the end of any origin"},
	} {
		s := testimg.NewCow(4096)
		for i := range uint64(5) {
			s.Put(100+i, nil) // in reverse order
		}
		for i := range uint64(5) {
			s.Put(202+i, nil) // a run
		}
		s.Append(c.old, c.new)
		b := append(s.Bytes(), make([]byte, 4096)...)
		if !t.Run(name, func(t *testing.T) { wantRefused(t, b, c.text) }) {
			continue
		}
	}
	t.Run("the place of a later area", func(t *testing.T) {
		s := testimg.NewCow(4096)
		s.Append(5, 1+3*(E+1))
		wantRefused(t, append(s.Bytes(), make([]byte, 4096*4*E)...), "new_chunk 0x304: the place of area 3")
	})
	t.Run("the end of the snapshot", func(t *testing.T) {
		s := testimg.NewCow(4096)
		s.Put(4, nil)
		store := mustOpen(t, s.Bytes())
		if _, err := NewView(store, sparse.Zeros(4*4096+1), 4*4096+1); err != nil {
			t.Error(err)
		}
		v, err := NewView(store, sparse.Zeros(1<<40), 4*4096)
		wantFormatError(t, err, "old_chunk 0x4: behind the end of a snapshot of 16384 bytes")
		if v != nil {
			t.Error("a view and an error")
		}
	})
	t.Run("chunk 0 of the origin is one like others", func(t *testing.T) {
		s := testimg.NewCow(4096)
		s.Put(7, []byte("seven"))
		s.Put(0, []byte("zero"))
		s.Put(8, []byte("eight"))
		v, err := NewView(mustOpen(t, s.Bytes()), sparse.Zeros(1<<20), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		p := content(t, v)
		if string(p[:4]) != "zero" || string(p[7*4096:][:5]) != "seven" || string(p[8*4096:][:5]) != "eight" {
			t.Error("wrong bytes")
		}
	})
}

// TestHazardNoEnd: full areas without a next one, and tables without an end.
func TestHazardNoEnd(t *testing.T) {
	for areas := range 3 {
		s := testimg.NewCow(4096)
		for i := range 256 * (areas + 1) {
			s.Put(uint64(3*i), nil)
		}
		b := s.Bytes()
		if _, err := openBytes(b); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, b[:len(b)-4096], fmt.Sprintf("exception area %d at 0x%x: is full, and the next one", areas, 4096*(1+257*areas)))
		wantRefused(t, b[:len(b)-1], "is full, and the next one")
	}
	// Every record of the store is the same.
	for _, size := range []int64{1 << 40, math.MaxInt64} {
		for _, chunk := range []uint32{1, 8, 1 << 21} {
			if size < 2*int64(chunk)*512 {
				continue
			}
			_, err := Open(repeated{chunk, 3, 3}, size, Options{})
			wantFormatError(t, err, "new_chunk 0x3: two records have it")
		}
	}
	// Every area looks like the first one; runs are joined.
	for _, chunk := range []uint32{1, 8, 1024} {
		_, err := Open(repeated{chunk, 0, 2}, math.MaxInt64, Options{})
		wantFormatError(t, err, "two records have it")
	}
}

// repeated is a store whose areas are all the same: record i has the chunks from and to, each plus
// i if to is 2.
type repeated struct {
	chunk    uint32
	from, to uint64
}

func (r repeated) ReadAt(p []byte, off int64) (int, error) {
	if off == 0 {
		copy(p, "SnAp\x01\x00\x00\x00\x01\x00\x00\x00")
		binary.LittleEndian.PutUint32(p[12:], r.chunk)
		return len(p), nil
	}
	for i := 0; i+16 <= len(p); i += 16 {
		step := uint64(0)
		if r.to == 2 {
			step = uint64(off+int64(i)) % (uint64(r.chunk) * 512) / 16
		}
		binary.LittleEndian.PutUint64(p[i:], r.from+step)
		binary.LittleEndian.PutUint64(p[i+8:], r.to+step)
	}
	return len(p), nil
}

// TestCut cuts a store of two areas at every offset. If a part of the store is missing, it does not
// open; if only something after the last chunk is, all of the content is there.
func TestCut(t *testing.T) {
	d := newDisk(40 * 512)
	s := d.snapshot(512)
	for i := range 33 {
		d.write((i*7%40)*512, []byte{byte(i)})
	}
	whole := s.cow.Bytes()
	b := append(bytes.Clone(whole), make([]byte, 1500)...)
	opened := 0
	for size := range b {
		store, err := openBytes(b[:size:size])
		if size < len(whole) {
			wantFormatError(t, err, "")
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		v, err := NewView(store, d.view, d.view.Size())
		if err != nil || !bytes.Equal(content(t, v), s.want) {
			t.Fatalf("cut at %d: %v, or other bytes", size, err)
		}
		opened++
	}
	if opened != 1500 {
		t.Errorf("%d opened", opened)
	}
	t.Logf("%d cuts refused, %d opened", len(whole), opened)
}

// TestShortened: a store that became shorter after it was opened.
func TestShortened(t *testing.T) {
	d := newDisk(20 * 512)
	s := d.snapshot(512)
	for i := range 20 {
		d.write(i*512, []byte("x"))
	}
	b := s.cow.Bytes()
	for size := range len(b) {
		r := &failing{b: b[:size], from: 1 << 40}
		store := mustOpen(t, b)
		store.r = r
		v, err := NewView(store, d.view, d.view.Size())
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 512)
		for off := int64(0); off < v.Size(); off += 512 {
			n, err := v.ReadAt(p, off)
			if !bytes.Equal(p[:n], s.want[off:off+int64(n)]) {
				t.Fatalf("cut to %d: other bytes at %d", size, off)
			}
			if err != nil && err != io.EOF {
				wantFormatError(t, err, "became shorter")
			}
		}
		if size <= 512 {
			if err := v.Recheck(); !errors.Is(err, sparse.ErrChanged) {
				t.Errorf("cut to %d: Recheck: %v", size, err)
			}
		}
	}
}
