package lvm

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// The first disk failed while the arrays were in use, and the superblocks on the others record it.
// Its content is old, and must not be read, whether the disk is there or not.
func TestFailed(t *testing.T) {
	all := disks(t, "failed")
	for _, set := range [][]Disk{all, all[1:], {all[3], all[0], all[2], all[1]}} {
		g := assemble(t, set...)
		for _, c := range contents(t, "failed") {
			if c.lv != "r5" {
				checkContent(t, g, c, false)
				continue
			}
			v, err := g.Open(c.lv, OpenOptions{})
			if v != nil || err == nil || !strings.Contains(err.Error(), "failed/r5 is degraded, and is not put together from parity") {
				t.Errorf("r5: %v", err)
				continue
			}
			want := "r5_rimage_0: it failed"
			if len(set) < 4 {
				want = "not among the disks"
			}
			if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("r5: %v, want %q", err, want)
			}
		}
	}
	// The failed disk alone, with nothing to show that it failed: stale as it is, it is a whole
	// image. LVM would read it too. Everything there is old, but of one moment.
	g := assemble(t, all[0])
	if b := mustRead(t, mustOpen(t, g, "r1")); !bytes.HasPrefix(b, []byte("r1      0000000\n")) {
		t.Errorf("r1 begins with %.16q", b)
	}
	// Images 0 and 1 of r10 hold the same data; without both, something is lost.
	for _, set := range [][]Disk{{all[2], all[3]}, {all[0], all[2], all[3]}, {all[0], all[1]}} {
		if v, err := assemble(t, set...).Open("r10", OpenOptions{}); v != nil || err == nil || !strings.Contains(err.Error(), "failed/r10 has lost all copies of some data") {
			t.Errorf("%v", err)
		}
	}
	var missing *MissingError
	if _, err := assemble(t, all[2:]...).Open("last", OpenOptions{}); !errors.As(err, &missing) {
		t.Error(err)
	}
}

// patched is a disk with some bytes replaced.
type patched struct {
	Disk
	at map[int64][]byte
}

func (p *patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.Disk.R.ReadAt(b, off)
	for at, other := range p.at {
		lo, hi := max(at, off), min(at+int64(len(other)), off+int64(n))
		if lo < hi {
			copy(b[lo-off:hi-off], other[lo-at:hi-at])
		}
	}
	return n, err
}

// Superblocks that contradict the text.
func TestRAIDSuperblocks(t *testing.T) {
	all := disks(t, "raid")
	healthy := assemble(t, all...)
	u32, u64 := func(v uint32) []byte { return le.AppendUint32(nil, v) }, func(v uint64) []byte { return le.AppendUint64(nil, v) }
	for _, c := range []struct {
		lv    string
		image int
		at    int64
		bytes []byte
		want  string // "" if it is still read
	}{
		{"r5", 0, 0, make([]byte, 4096), "r5_rimage_0: its superblock was never written: raid/r5 is degraded"},
		{"r5", 1, 0, u32(1), "magic 0x1"},
		{"r5", 1, 8, u32(3), "devices 0x3: not the 4"},
		{"r5", 1, 12, u32(2), "position 0x2: not its place"},
		{"r5", 2, 16, u64(1), "it is at event 1, the array at"},
		{"r5", 2, 24, u64(1 << 3), ""}, // overruled by a newer one, below
		{"r5", 3, 32, u64(64), "only its first 64 sectors were rebuilt"},
		{"r5", 0, 48, u32(6), "level 0x6: not the 5 of raid5"},
		{"r5", 0, 52, u32(0), "layout 0x0: not the 0x2 of raid5"},
		{"r5", 0, 56, u32(8), "stripe size 0x8: not the 128 sectors"},
		{"r5", 0, 60, u32(1), "being reshaped"},
		{"r5", 0, 96, u64(8), "being reshaped"},
		{"r5", 0, 144, u32(1), "incompatible features 0x1"},
		{"r10", 0, 52, u32(0x103), "layout 0x103: not the 0x102"},
		{"r0meta", 0, 56, u32(8), "stripe size"},
		{"r1", 0, 0, make([]byte, 4096), ""},
		{"r1", 0, 32, u64(64), ""},
		{"r1three", 1, 32, u64(64), ""},
		{"r10", 0, 0, make([]byte, 4096), ""},
	} {
		lv := healthy.LV(c.lv)
		disk, off := placeOf(t, healthy, lv.Segments[0].Metas[c.image])
		set := slices.Clone(all)
		p := &patched{set[disk], map[int64][]byte{off + c.at: c.bytes}}
		if c.at == 24 { // this one is now the newest
			p.at[off+16] = u64(1 << 40)
			c.want = "it is at event"
		}
		set[disk].R = p
		v, err := assemble(t, set...).Open(c.lv, OpenOptions{})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s at %d: %v", c.lv, c.at, err)
		case c.want == "":
			if !bytes.Equal(mustRead(t, v), mustRead(t, mustOpen(t, healthy, c.lv))) {
				t.Errorf("%s: other content", c.lv)
			}
		case err == nil || v != nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s at %d: %v, want %s", c.lv, c.at, err, c.want)
		}
	}
	// If they are not in sync, another copy may not hold what the first does.
	for name, want := range map[string]string{"r1": "the other images may differ from it", "r10": "its copy may differ from it"} {
		s := &healthy.LV(name).Segments[0]
		lost, _ := placeOf(t, healthy, s.Images[0])
		unsynced := slices.Clone(all)
		for _, meta := range s.Metas {
			disk, off := placeOf(t, healthy, meta)
			unsynced[disk].R = &patched{unsynced[disk], map[int64][]byte{off + 40: u64(0)}}
		}
		if b := mustRead(t, mustOpen(t, assemble(t, unsynced...), name)); !bytes.Equal(b, mustRead(t, mustOpen(t, healthy, name))) {
			t.Errorf("%s: other content", name)
		}
		if _, err := assemble(t, slices.Delete(unsynced, lost, lost+1)...).Open(name, OpenOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// placeOf returns the disk, and the offset on it, where a linear volume begins.
func placeOf(t *testing.T, g *Group, name string) (disk int, off int64) {
	t.Helper()
	lv := g.LV(name)
	a := lv.Segments[0].Areas[0]
	m := g.pvs[a.Name]
	return slices.Index(g.PVs, m), m.Start + a.Extent*g.ExtentSize
}

// Each raid1 and raid10 is read without each of its disks; the other types are refused.
func TestRAIDWithoutOneDisk(t *testing.T) {
	all := disks(t, "raid")
	read, refused := 0, 0
	for i := range all {
		g := assemble(t, slices.Delete(slices.Clone(all), i, i+1)...)
		for _, c := range contents(t, "raid") {
			v, err := g.Open(c.lv, OpenOptions{})
			kind := g.LV(c.lv).Type()
			var missing *MissingError
			switch {
			case err == nil:
				read++
				if got := sum(mustRead(t, v)); got != c.sum {
					t.Errorf("%s without disk %d: other content", c.lv, i)
				}
			case kind == "raid1" || kind == "raid10" || !errors.As(err, &missing):
				t.Errorf("%s without disk %d: %v", c.lv, i, err)
			default:
				refused++
			}
		}
	}
	if read < 24 || refused < 60 {
		t.Errorf("%d read, %d refused", read, refused)
	}
}

var _ io.ReaderAt = (*patched)(nil)
