package vmstate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"cbt/internal/testqemu"
	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

// bothCores lets a machine run for a while and has QEMU write its memory to the file dump in its
// directory. It returns the core file of the machine's state at that moment.
func bothCores(t *testing.T, m *testqemu.Machine, runs time.Duration) ([]Range, *Core) {
	t.Helper()
	time.Sleep(runs)
	m.Do("stop", nil)
	m.Do("dump-guest-memory", map[string]any{"paging": false, "protocol": "file:dump"})
	m.Migrate("exec:cat>state")
	s := openFile(t, filepath.Join(m.Dir, "state"))
	ranges, err := s.RAMRanges("")
	if err != nil {
		t.Fatal(err)
	}
	core, err := s.Core(ranges, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ranges, core
}

// TestOpenDump reads core files: ours, and QEMU's of the same machine.
func TestOpenDump(t *testing.T) {
	m := testqemu.Start(t, "-m", "32", "-smp", "2", "-device", fillFile(t, 4<<20))
	ranges, core := bothCores(t, m, 300*time.Millisecond)
	ours, err := OpenDump(core, core.Size())
	if err != nil {
		t.Fatal(err)
	}
	theirs := dumpFile(t, filepath.Join(m.Dir, "dump"))
	for _, d := range []*Dump{ours, theirs} {
		if d.CPUs != 2 || d.Architecture != theirs.Architecture {
			t.Errorf("%d processors, %s", d.CPUs, d.Architecture)
		}
	}
	if len(ours.Segments) != len(ranges) {
		t.Errorf("%d segments, want %d", len(ours.Segments), len(ranges))
	}
	// Everything in our file is in QEMU's.
	at := func(d *Dump, addr uint64, n int) []byte {
		for _, p := range d.Pieces(sparse.Plain(d.src, d.size)) {
			if addr >= p.Addr && addr+uint64(n) <= p.Addr+uint64(p.Size()) {
				b := make([]byte, n)
				if _, err := sparse.ReadFull(p, b, int64(addr-p.Addr)); err != nil {
					t.Fatal(err)
				}
				return b
			}
		}
		t.Fatalf("nothing at 0x%x", addr)
		return nil
	}
	for _, s := range ours.Segments {
		if !bytes.Equal(at(ours, s.Addr, int(s.Len)), at(theirs, s.Addr, int(s.Len))) {
			t.Errorf("memory at 0x%x differs", s.Addr)
		}
	}
}

// handCore returns a core file of 32 or 64 bits with these segments, whose bytes follow one
// another.
func handCore(order binary.AppendByteOrder, wide bool, segments []DumpSegment, data []byte) []byte {
	word := func(b []byte, v uint64) []byte {
		if wide {
			return order.AppendUint64(b, v)
		}
		return order.AppendUint32(b, uint32(v))
	}
	class, head, program := byte(1), 52, 32
	if wide {
		class, head, program = 2, 64, 56
	}
	endian := byte(1)
	if any(order) == any(binary.BigEndian) {
		endian = 2
	}
	b := append([]byte("\x7fELF"), class, endian, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = order.AppendUint16(order.AppendUint16(b, 4), 22)
	b = order.AppendUint32(b, 1)
	b = word(word(word(b, 0), uint64(head)), 0)
	b = order.AppendUint32(b, 0)
	for _, n := range []int{head, program, len(segments), 0, 0, 0} {
		b = order.AppendUint16(b, uint16(n))
	}
	at := uint64(head + program*len(segments))
	for _, s := range segments {
		b = order.AppendUint32(b, 1)
		if wide {
			b = order.AppendUint32(b, 0)
		}
		b = word(word(word(word(word(b, at), s.Addr), s.Addr), uint64(s.Stored)), uint64(s.Len))
		if !wide {
			b = order.AppendUint32(b, 0)
		}
		b = word(b, 0)
		at += uint64(s.Stored)
	}
	return append(b, data...)
}

func TestDumpPieces(t *testing.T) {
	segments := []DumpSegment{{0x5000, 8, 8, 0}, {0x1000, 16, 4, 0}, {0x1010, 4, 4, 0}, {0x5004, 2, 2, 0}}
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, wide := range []bool{false, true} {
			b := handCore(order, wide, segments, []byte("abcdefghijklmnopqr"))
			d, err := OpenDump(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			type run struct {
				addr uint64
				text string
			}
			var got []run
			for _, p := range d.Pieces(sparse.Plain(d.src, d.size)) {
				text := make([]byte, p.Size())
				if _, err := sparse.ReadFull(p, text, 0); err != nil {
					t.Fatal(err)
				}
				sparsetest.View(t, p, text)
				got = append(got, run{p.Addr, string(text)})
			}
			if want := []run{{0x1000, "ijkl" + string(make([]byte, 12)) + "mnop"}, {0x5000, "abcdefgh"}, {0x5004, "qr"}}; !slices.Equal(got, want) || d.Architecture != "S390" {
				t.Errorf("%v %v: %+v, %q", order, wide, got, d.Architecture)
			}
			for n := range b {
				var fe *sparse.FormatError
				if _, err := OpenDump(bytes.NewReader(b[:n]), int64(n)); !errors.As(err, &fe) && !errors.Is(err, ErrNotCore) {
					t.Fatalf("cut at %d: %v", n, err)
				}
			}
		}
	}
	for _, text := range []string{"", "\x7fELF", "QEVM"} {
		if _, err := OpenDump(bytes.NewReader([]byte(text)), int64(len(text))); !errors.Is(err, ErrNotCore) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Numbers that do not fit are errors.
func TestHostileDumps(t *testing.T) {
	good := handCore(binary.LittleEndian, true, []DumpSegment{{0x1000, 16, 16, 0}}, make([]byte, 16))
	le := binary.LittleEndian
	for _, c := range []struct {
		at    int
		value uint64
	}{
		{32, 1 << 63}, {32, ^uint64(0) - 8}, // e_phoff
		{64 + 8, ^uint64(0)}, {64 + 24, ^uint64(0)}, {64 + 32, 1 << 63}, {64 + 40, 1}, {64 + 40, ^uint64(0)},
	} {
		b := slices.Clone(good)
		le.PutUint64(b[c.at:], c.value)
		var fe *sparse.FormatError
		if _, err := OpenDump(bytes.NewReader(b), int64(len(b))); !errors.As(err, &fe) {
			t.Errorf("%#x at %d: %v", c.value, c.at, err)
		}
	}
	b := slices.Clone(good)
	le.PutUint16(b[56:], phnumInInfo)
	le.PutUint64(b[40:], 64)
	le.PutUint32(b[64+44:], 1<<31)
	if _, err := OpenDump(bytes.NewReader(b), int64(len(b))); err == nil {
		t.Error("2^31 segments")
	}
}

func dumpFile(t *testing.T, path string) *Dump {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d, err := OpenDump(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}
