package lvm

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"cbt/sparse"
)

func isFault(err error) bool {
	var fe *sparse.FormatError
	return errors.As(err, &fe)
}

func TestChecksum(t *testing.T) {
	for _, c := range []struct {
		in   []byte
		want uint32
	}{
		{[]byte("123456789"), 0x4991cf02},
		{make([]byte, 492), 0x02c81f10},
		{make([]byte, 508), 0x6702d122},
		{nil, 0xf597a6cf},
	} {
		if got := checksum(c.in); got != c.want {
			t.Errorf("checksum of %d bytes = %#x, want %#x", len(c.in), got, c.want)
		}
		if n := len(c.in) / 3; checksumMore(checksum(c.in[:n]), c.in[n:]) != c.want {
			t.Error("the checksum of two parts is not that of the whole")
		}
	}
}

func TestReadPV(t *testing.T) {
	text := vgText(1, "")
	for sector := range int64(4) {
		p := onePV(text)
		p.sector = sector
		b := p.bytes()
		pv, err := ReadPV(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if pv.UUID != testUUID || pv.LabelSector != sector || !pv.InUse || pv.Extension != 2 || pv.DeviceSize != 2<<20 || len(pv.DataAreas) != 1 || pv.DataAreas[0] != (Area{1 << 20, 0}) {
			t.Errorf("%+v", pv)
		}
		if len(pv.MetadataAreas) != 1 || string(pv.MetadataAreas[0].Text) != text || pv.MetadataAreas[0].Fault != nil || len(pv.Warnings) != 0 {
			t.Errorf("%+v", pv.MetadataAreas)
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 100), make([]byte, 512), make([]byte, 1<<20)} {
		if _, err := ReadPV(bytes.NewReader(b), int64(len(b))); err != ErrNoLabel {
			t.Errorf("%d zeros: %v", len(b), err)
		}
	}
	// A second label, and one whose sector number is not its own.
	b := onePV(text).bytes()
	copy(b[1024:], b[512:1024])
	le.PutUint64(b[1024+8:], 2)
	copy(b[0:], b[512:1024])
	pv, err := ReadPV(bytes.NewReader(b), int64(len(b)))
	if err != nil || pv.LabelSector != 1 || len(pv.Warnings) != 1 || !strings.Contains(pv.Warnings[0], "sector 2") {
		t.Errorf("%+v, %v", pv, err)
	}
}

func TestUUID(t *testing.T) {
	for s, want := range map[string]bool{
		testUUID: true, testVGID: true, "": false, testUUID + "x": false, testUUID[:37]: false,
		strings.Replace(testUUID, "-", "_", 1):          false,
		strings.Replace(testUUID, "a", "é", 1):          false,
		strings.Replace(testUUID, "c", "!", 1):          true,
		strings.Replace(testUUID, "c", "#", 1):          true,
		strings.ReplaceAll(testUUID, "-", "") + "aaaaa": false,
	} {
		if isUUID(s) != want {
			t.Errorf("isUUID(%q) = %v", s, !want)
		}
	}
}

// Hazard 1: the PV header.
func TestHazard1PVHeader(t *testing.T) {
	for _, c := range []struct {
		name  string
		patch func(h []byte)
		want  string // in the error; "": ErrNoLabel
	}{
		{"offset near 2^32", func(h []byte) { le.PutUint32(h[20:], math.MaxUint32-3) }, `offset 0xfffffffc`},
		{"offset past the label", func(h []byte) { le.PutUint32(h[20:], 512) }, `offset 0x200`},
		{"offset at the last place", func(h []byte) { le.PutUint32(h[20:], 473) }, `offset 0x1d9`},
		{"offset in the label header", func(h []byte) { le.PutUint32(h[20:], 0) }, `offset 0x0`},
		{"lists without end", func(h []byte) { copy(h[72:], bytes.Repeat([]byte{0, 0, 1, 0, 0, 0, 0, 0}, 60)) }, `more than 4`},
		{"a list that runs out of the label", func(h []byte) {
			le.PutUint32(h[20:], 512-40-24)
			copy(h[512-64:], h[32:72])
			le.PutUint64(h[512-24:], 1<<20)
		}, `the list does not end inside the label`},
		{"an area past 2^63", func(h []byte) { le.PutUint64(h[72:], 1<<63) }, `ends past 2^63`},
		{"a sum past 2^64", func(h []byte) { le.PutUint64(h[72:], 1<<62); le.PutUint64(h[80:], math.MaxUint64) }, `ends past 2^63`},
		{"a UUID of other bytes", func(h []byte) { h[32] = '/' }, `UUID`},
		{"a wrong type", func(h []byte) { copy(h[24:], "LVM1 001") }, ""},
		{"a wrong sector", func(h []byte) { h[8] = 2 }, ""},
		{"a wrong magic", func(h []byte) { h[0] = 'M' }, ""},
	} {
		b := onePV(vgText(1, "")).bytes()
		c.patch(b[512:1024])
		sealLabel(b[512:1024])
		pv, err := ReadPV(bytes.NewReader(b), int64(len(b)))
		if pv != nil {
			t.Errorf("%s: a PV", c.name)
		}
		if c.want == "" {
			if err != ErrNoLabel {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		wantFault(t, err, c.want)
	}
	// An extension that does not fit does not count.
	b := onePV("").bytes()
	h := b[512:1024]
	head := bytes.Clone(h[32:72])
	clear(h[32:])
	at := 512 - 40 - 32 - 4
	le.PutUint32(h[20:], uint32(at))
	copy(h[at:], head)
	for i := 508; i < 512; i++ {
		h[i] = 0xff
	}
	sealLabel(h)
	if pv, err := ReadPV(bytes.NewReader(b), int64(len(b))); err != nil || pv.Extension != 0 || pv.MetadataAreas != nil {
		t.Errorf("%+v, %v", pv, err)
	}
}

// Hazards 2 and 3: the header of a metadata area, and the place that it gives for the text.
func TestHazard2And3MetadataArea(t *testing.T) {
	const at, size = 4096, 64 << 10
	set64 := func(off int, v uint64) func([]byte) {
		return func(b []byte) { le.PutUint64(b[at+off:], v) }
	}
	list := func(off, n uint64) func([]byte) {
		return func(b []byte) {
			le.PutUint64(b[512+32+40+32:], off)
			le.PutUint64(b[512+32+40+40:], n)
			sealLabel(b[512:1024])
		}
	}
	for _, c := range []struct {
		name  string
		patch func(b []byte)
		want  string
	}{
		{"an area past the disk", list(1<<40, size), "not inside the disk"},
		{"an area that ends past the disk", list(2<<20-4096, size), "not inside the disk"},
		{"an area of no size", list(at, 0), "no room"},
		{"an area of 512 bytes", list(at, 512), "no room"},
		{"another start", set64(24, 8192), "start 0x2000"},
		{"another size", set64(32, size*2), "size 0x20000"},
		{"another magic", func(b []byte) { b[at+4] = 'x' }, "magic"},
		{"another version", func(b []byte) { b[at+20] = 2 }, "version 0x2"},
		{"a text of no bytes", set64(48, 0), "text size 0x0"},
		{"a text longer than the area", set64(48, size-511), "text size"},
		{"a text of 2^64-1 bytes", set64(48, math.MaxUint64), "text size 0xffffffffffffffff"},
		{"a text at 511", set64(40, 511), "text offset 0x1ff"},
		{"a text at the end", set64(40, size), "text offset 0x10000"},
		{"a text at 2^64-1", set64(40, math.MaxUint64), "text offset 0xffffffffffffffff"},
		{"offset and size past 2^64", func(b []byte) { set64(40, math.MaxUint64-100)(b); set64(48, 200)(b) }, "text offset"},
		{"another text checksum", func(b []byte) { b[at+56]++ }, "text checksum"},
		{"raw_locn without an end", func(b []byte) {
			for o := at + 64; o < at+512; o++ {
				b[o] = 0xff
			}
		}, ""},
	} {
		b := onePV(vgText(1, "")).bytes()
		c.patch(b)
		sealMDA(b[at:])
		pv, err := ReadPV(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		m := pv.MetadataAreas[0]
		if c.want == "" {
			if m.Fault != nil || m.Text == nil {
				t.Errorf("%s: %v", c.name, m.Fault)
			}
			continue
		}
		if m.Text != nil || len(pv.Warnings) != 1 {
			t.Errorf("%s: text %.20q, warnings %q", c.name, m.Text, pv.Warnings)
		}
		wantFault(t, m.Fault, c.want)
		if _, err := Assemble([]Disk{diskOf("pv.img", b)}); !isFault(err) || !strings.HasPrefix(err.Error(), "pv.img: ") {
			t.Errorf("%s: Assemble: %v", c.name, err)
		}
	}
	// A header checksum that is wrong.
	b := onePV(vgText(1, "")).bytes()
	b[at]++
	pv, _ := ReadPV(bytes.NewReader(b), int64(len(b)))
	wantFault(t, pv.MetadataAreas[0].Fault, "checksum")
	// Areas that overlap.
	p := onePV(vgText(1, ""))
	p.areas = []Area{{4096, 64 << 10}, {8192, 64 << 10}}
	p.text = ""
	b = p.bytes()
	pv, err := ReadPV(bytes.NewReader(b), int64(len(b)))
	if err != nil || pv.MetadataAreas[1].Fault == nil || !strings.Contains(pv.MetadataAreas[1].Fault.Error(), "overlaps") {
		t.Errorf("%+v, %v", pv, err)
	}
}

// A text at any place of the area, wrapped or not.
func TestWrap(t *testing.T) {
	text := vgText(7, lvText("a", linear(0, 1, "pv0", 0)))
	for _, at := range []uint64{512, 1024, 64<<10 - 512, 64<<10 - 1, 64<<10 - uint64(len(text)) - 1, 64<<10 - uint64(len(text)), 30000} {
		p := onePV(text)
		p.at = at
		b := p.bytes()
		pv, err := ReadPV(bytes.NewReader(b), int64(len(b)))
		if err != nil || pv.MetadataAreas[0].Fault != nil || string(pv.MetadataAreas[0].Text) != text {
			t.Errorf("at %d: %+v, %v", at, pv, err)
		}
	}
}

// writer changes its content after each read that begins in a range.
type writer struct {
	b      []byte
	lo, hi int64
	then   []func(b []byte)
}

func (w *writer) ReadAt(p []byte, off int64) (int, error) {
	n, err := bytes.NewReader(w.b).ReadAt(p, off)
	if off >= w.lo && off < w.hi && len(w.then) > 0 {
		f := w.then[0]
		w.then = w.then[1:]
		f(w.b)
	}
	return n, err
}

var _ io.ReaderAt = (*writer)(nil)

// LVM commits while the area is read: between the header and the text, several times, or without end.
func TestRacingWriter(t *testing.T) {
	first := onePV(vgText(1, ""))
	commit := func(seqno int) func(b []byte) {
		return func(b []byte) { copy(b, onePV(vgText(seqno, "")).bytes()[:128<<10]) }
	}
	for commits := range 20 {
		w := &writer{b: first.bytes(), lo: 4096, hi: 4097}
		for i := range commits {
			w.then = append(w.then, commit(i+2))
		}
		pv, err := ReadPV(w, int64(len(w.b)))
		if err != nil {
			t.Fatal(err)
		}
		m := pv.MetadataAreas[0]
		switch want := vgText(commits+1, ""); {
		case commits < maxAttempts && (m.Fault != nil || string(m.Text) != want):
			t.Errorf("%d commits: %v, %.80q", commits, m.Fault, m.Text)
		case commits >= maxAttempts && (m.Text != nil || m.Fault == nil):
			t.Errorf("%d commits: a text", commits)
		}
	}
	// Damage is not read again and again.
	b := first.bytes()
	b[4096+600]++
	reads := 0
	pv, err := ReadPV(countReads{bytes.NewReader(b), &reads}, int64(len(b)))
	if err != nil || pv.MetadataAreas[0].Fault == nil || reads > 7 {
		t.Errorf("%d reads, %+v, %v", reads, pv, err)
	}
}

type countReads struct {
	io.ReaderAt
	n *int
}

func (c countReads) ReadAt(p []byte, off int64) (int, error) {
	*c.n++
	return c.ReaderAt.ReadAt(p, off)
}

// A disk that ends anywhere: no panic, and no incomplete text.
func TestCutPV(t *testing.T) {
	text := vgText(1, lvText("a", linear(0, 1, "pv0", 0)))
	b := onePV(text).bytes()
	texts := 0
	for size := range 80 << 10 {
		pv, err := ReadPV(bytes.NewReader(b[:size]), int64(size))
		if err != nil {
			if err != ErrNoLabel && !isFault(err) {
				t.Fatalf("cut at %d: %v", size, err)
			}
			continue
		}
		switch m := pv.MetadataAreas[0]; {
		case m.Text != nil && string(m.Text) != text:
			t.Fatalf("cut at %d: another text", size)
		case m.Text != nil:
			texts++
		case !isFault(m.Fault):
			t.Fatalf("cut at %d: %v", size, m.Fault)
		}
	}
	if texts != 80<<10-(4096+64<<10) {
		t.Errorf("%d cuts with a text", texts)
	}
}
