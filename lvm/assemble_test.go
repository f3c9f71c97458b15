package lvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cbt/sparse"
)

// pv2 returns physical volume i of the group that has testUUID and testUUID2.
func pv2(i, seqno int, lvs string) []byte {
	p := onePV(vgText(seqno, lvs, testUUID, testUUID2))
	p.uuid = []string{testUUID, testUUID2}[i]
	return numbered(p.bytes())
}

var onBoth = lvText("a", linear(0, 1, "pv0", 0)) + lvText("b", linear(0, 1, "pv1", 1)) + lvText("ab", linear(0, 1, "pv0", 2), linear(1, 1, "pv1", 3))

func TestAssemble(t *testing.T) {
	g := assemble(t, diskOf("two", pv2(1, 3, onBoth)), diskOf("one", pv2(0, 3, onBoth)))
	if g.Name != "vg" || g.ID != testVGID || g.SeqNo != 3 || g.ExtentSize != 64<<10 || len(g.PVs) != 2 || len(g.LVs) != 3 || len(g.Warnings) != 0 {
		t.Errorf("%+v", g)
	}
	if g.PVs[0].Disk.Name != "one" || g.PVs[1].Disk.Name != "two" || g.PVs[1].Missing != "" {
		t.Errorf("%+v", g.PVs)
	}
	if b := mustRead(t, mustOpen(t, g, "ab")); b[0] != 3 || b[64<<10] != 4 {
		t.Error("ab")
	}
	// The highest number counts, whichever disk it is on.
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		both := []Disk{diskOf("old", pv2(0, 3, "")), diskOf("new", pv2(1, 4, onBoth))}
		g := assemble(t, both[order[0]], both[order[1]])
		if g.SeqNo != 4 || len(g.LVs) != 3 || len(g.Warnings) != 1 || g.Warnings[0] != "old has an old text: sequence number 3, not 4" {
			t.Errorf("%d: %q", g.SeqNo, g.Warnings)
		}
		if b := mustRead(t, mustOpen(t, g, "a")); b[0] != 1 {
			t.Error("a")
		}
	}
	// Two texts with one sequence number.
	_, err := Assemble([]Disk{diskOf("one", pv2(0, 3, onBoth)), diskOf("two", pv2(1, 3, ""))})
	wantFault(t, err, `two: LVM metadata of vg: seqno 3: another text with this number is on one`)
	// No label, no group, no disk.
	if _, err := Assemble([]Disk{diskOf("one", pv2(0, 3, "")), diskOf("x", make([]byte, 1<<20))}); !errors.Is(err, ErrNoLabel) || err.Error() != "x: "+ErrNoLabel.Error() {
		t.Error(err)
	}
	orphan := onePV("")
	orphan.uuid = testUUID2
	for _, disks := range [][]Disk{nil, {diskOf("orphan", orphan.bytes())}} {
		if groups, err := Assemble(disks); err != nil || len(groups) != 0 {
			t.Error(groups, err)
		}
	}
	// A member without metadata, or with damaged or ignored metadata of its own, is found by its UUID.
	none, ignored := orphan, onePV(vgText(1, onBoth, testUUID, testUUID2))
	none.areas = nil
	ignored.uuid, ignored.flags = testUUID2, rawIgnored
	damaged := pv2(1, 3, onBoth)
	damaged[4096+700]++
	for i, b := range [][]byte{orphan.bytes(), none.bytes(), ignored.bytes(), damaged} {
		g := assemble(t, diskOf("one", pv2(0, 3, onBoth)), diskOf("two", numbered(b)))
		if b := mustRead(t, mustOpen(t, g, "b")); b[0] != 2 {
			t.Errorf("%d: b holds %d", i, b[0])
		}
		if warned := len(g.Warnings) > 0; warned != (i >= 2) {
			t.Errorf("%d: %q", i, g.Warnings)
		}
	}
	if groups, err := Assemble([]Disk{diskOf("two", ignored.bytes())}); err != nil || len(groups) != 0 {
		t.Error(groups, err)
	}
	for _, change := range [][2]string{{"status = [\"RESIZEABLE\"", "status = [\"SHARED\""}, {"seqno = 1", "seqno = 1\nlock_type = \"sanlock\""}, {"seqno = 1", "seqno = 1\nlock_type = \"none\""}} {
		g := assemble(t, diskOf("one", onePV(strings.Replace(vgText(1, ""), change[0], change[1], 1)).bytes()))
		if warned := len(g.Warnings) == 1 && strings.Contains(g.Warnings[0], "other hosts may write to it"); warned == strings.Contains(change[1], "none") {
			t.Errorf("%s: %q", change[1], g.Warnings)
		}
	}
	// The newest text no longer lists a disk.
	left := assemble(t, diskOf("one", numbered(onePV(vgText(9, lvText("a", linear(0, 1, "pv0", 0)))).bytes())), diskOf("two", pv2(1, 3, onBoth)))
	if len(left.PVs) != 1 || len(left.Warnings) != 1 || left.LV("b") != nil {
		t.Errorf("%+v, %q", left.PVs, left.Warnings)
	}
}

// Hazard 5: the same UUID twice, a UUID that is nowhere, two groups of one name.
func TestHazard5Disks(t *testing.T) {
	one, two := pv2(0, 3, onBoth), pv2(1, 3, onBoth)
	g := assemble(t, diskOf("one", one), diskOf("two", two), diskOf("clone", bytes.Clone(two)))
	want := "the same physical volume is on two and on clone"
	if g.PVs[1].Missing != want || g.PVs[1].Disk != nil || len(g.Warnings) != 1 {
		t.Errorf("%+v, %q", g.PVs[1], g.Warnings)
	}
	mustOpen(t, g, "a")
	for _, name := range []string{"b", "ab"} {
		var missing *MissingError
		if _, err := g.Open(name, OpenOptions{}); !errors.As(err, &missing) || missing.Reason != want || missing.Volume != "vg/"+name {
			t.Errorf("%s: %v", name, err)
		}
	}

	g = assemble(t, diskOf("one", one))
	if _, err := g.Open("b", OpenOptions{}); err == nil || err.Error() != "vg/b: physical volume pv1 ("+testUUID2+", once /dev/sdb): not among the disks" {
		t.Error(err)
	}
	// LVM once saw it missing: its content may be old.
	text := strings.Replace(vgText(3, onBoth, testUUID, testUUID2), "device = \"/dev/sdb\"\nstatus = [\"ALLOCATABLE\"]\nflags = []", "device = \"/dev/sdb\"\nstatus = [\"ALLOCATABLE\"]\nflags = [\"MISSING\"]", 1)
	p := onePV(text)
	p.text = strings.Replace(text, "seqno = 3", "seqno = 4", 1)
	g = assemble(t, diskOf("one", p.bytes()), diskOf("two", two))
	if _, err := g.Open("b", OpenOptions{}); err == nil || !strings.Contains(err.Error(), "calls it missing") {
		t.Error(err)
	}

	otherID := strings.Replace(testVGID, "V", "W", 1)
	other := onePV(strings.ReplaceAll(vgText(7, lvText("a", linear(0, 1, "pv0", 8)), lvid(77)), testVGID, otherID))
	other.uuid = lvid(77)
	groups, err := Assemble([]Disk{diskOf("one", one), diskOf("two", two), diskOf("other", numbered(other.bytes()))})
	if err != nil || len(groups) != 2 || groups[0].Name != "vg" || groups[1].Name != "vg" {
		t.Fatal(groups, err)
	}
	if _, err := FindGroup(groups, "vg"); err == nil || !strings.Contains(err.Error(), testVGID) || !strings.Contains(err.Error(), otherID) {
		t.Error(err)
	}
	for i, id := range []string{testVGID, strings.ReplaceAll(otherID, "-", "")} {
		g, err := FindGroup(groups, id)
		if err != nil {
			t.Fatal(err)
		}
		if b := mustRead(t, mustOpen(t, g, "a")); b[0] != []byte{1, 9}[i] {
			t.Errorf("%s: a holds %d", id, b[0])
		}
	}
	if _, err := FindGroup(groups, "nothing"); !errors.Is(err, ErrNoGroup) {
		t.Error(err)
	}
	if g, err := FindGroup(groups[:1], "vg"); err != nil || g != groups[0] {
		t.Error(g, err)
	}

	// A disk that another group lists, but that belongs to this one by its own text.
	stolen := onePV(strings.ReplaceAll(vgText(7, lvText("s", linear(0, 1, "pv0", 8)), testUUID2), testVGID, otherID))
	stolen.uuid = testUUID2
	groups, err = Assemble([]Disk{diskOf("one", one), diskOf("moved", numbered(stolen.bytes()))})
	if err != nil || len(groups) != 2 {
		t.Fatal(groups, err)
	}
	if m := groups[0].PVs[1].Missing; m != "moved belongs to the group vg ("+otherID+") by its own text" {
		t.Error(m)
	}
	if b := mustRead(t, mustOpen(t, groups[1], "s")); b[0] != 9 {
		t.Error("s")
	}
}

// A disk that is shorter than the text says.
func TestShortDisk(t *testing.T) {
	b := numbered(onePV(vgText(1, lvText("a", linear(0, 2, "pv0", 3)))).bytes())
	end := 1<<20 + 5<<16
	if v := mustOpen(t, assemble(t, diskOf("pv", b[:end])), "a"); !bytes.Equal(mustRead(t, v)[:1], []byte{4}) {
		t.Error("a")
	}
	wantOpenFault(t, assemble(t, diskOf("pv", b[:end-1])), "a", "vg/a: PV pv0 on pv at 0x130000: 131072 bytes of extents there are not inside the disk")
}

func TestRecheck(t *testing.T) {
	ctx := context.Background()
	text := func(seqno int, more string) string { return vgText(seqno, onBoth+more, testUUID, testUUID2) }
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		want   string
	}{
		{"nothing", func(b []byte) []byte { return b }, ""},
		{"another volume", func([]byte) []byte { return pv2(0, 4, onBoth+lvText("c", linear(0, 1, "pv0", 9))) }, ""},
		{"moved", func([]byte) []byte { return pv2(0, 4, strings.Replace(onBoth, `"pv0", 0`, `"pv0", 9`, 1)) }, "vg/a"},
		{"removed", func([]byte) []byte { return pv2(0, 4, "") }, "vg/a"},
		{"grown", func([]byte) []byte {
			return pv2(0, 4, strings.Replace(onBoth, lvText("a", linear(0, 1, "pv0", 0)), lvText("a", linear(0, 2, "pv0", 0)), 1))
		}, "vg/a"},
		{"another place of extents", func([]byte) []byte {
			return numbered(onePV(strings.Replace(text(4, ""), "pe_start = 2048", "pe_start = 2176", 1)).bytes())
		}, "physical volumes of vg"},
		{"no group", func([]byte) []byte { return numbered(onePV("").bytes()) }, "vg is gone"},
		{"no label", func(b []byte) []byte { return make([]byte, len(b)) }, "no LVM label"},
		{"damaged", func(b []byte) []byte { b[4096+600]++; return b }, "text checksum"},
	} {
		b := numbered(onePV(text(3, "")).bytes())
		g := assemble(t, diskOf("one", b))
		v := mustOpen(t, g, "a")
		if err := v.Recheck(ctx); err != nil {
			t.Fatal(err)
		}
		copy(b, c.change(bytes.Clone(b)))
		err := v.Recheck(ctx)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, sparse.ErrChanged) || !strings.Contains(fmt.Sprint(err), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	g := assemble(t, diskOf("one", pv2(0, 3, onBoth)))
	if err := mustOpen(t, g, "a").Recheck(done); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Holes of the disks are holes of volumes, through every kind of mapping that shows them.
func TestHoles(t *testing.T) {
	b := onePV(vgText(1,
		lvText("l", linear(0, 2, "pv0", 0))+
			lvText("s", segText(0, 6, "type = \"striped\"\nstripe_count = 3\nstripe_size = 8\nstripes = [ \"pv0\", 2, \"pv0\", 4, \"pv0\", 6 ]"))+
			lvText("i0", linear(0, 2, "pv0", 8))+lvText("i1", linear(0, 2, "pv0", 10))+lvText("i2", linear(0, 2, "pv0", 12))+lvText("i3", linear(0, 2, "pv0", 14))+
			lvText("r", segText(0, 4, "type = \"raid10\"\ndevice_count = 4\nstripe_size = 8\nraids = [ \"i0\", \"i1\", \"i2\", \"i3\" ]")))).bytes()
	mark := func(extent, block int, value byte) {
		copy(b[1<<20+extent<<16+block<<12:], bytes.Repeat([]byte{value}, 4096))
	}
	mark(0, 5, 1)
	mark(4, 3, 2)  // row 3 of s, leg 1
	mark(7, 15, 3) // row 31 of s, the last
	mark(8, 7, 4)
	mark(10, 7, 4) // row 7 of r in images 0 and 1
	g := assemble(t, Disk{Name: "pv", R: holey{b}, Size: int64(len(b))})
	for name, want := range map[string]string{
		"l": "[[0,20480) hole [20480,24576) data [24576,131072) hole]",
		"s": "[[0,36864) hole [36864,49152) data [49152,380928) hole [380928,393216) data]",
		"r": "[[0,57344) hole [57344,65536) data [65536,262144) hole]",
	} {
		v := mustOpen(t, g, name)
		got, err := sparse.Collect(v.Extents(0, v.Size()))
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: %v, %v, want %s", name, got, err, want)
		}
		checkView(t, v)
	}
}

// holey is a disk whose blocks of 4 KiB of zeros are holes.
type holey struct{ b []byte }

func (h holey) Size() int64 { return int64(len(h.b)) }

func (h holey) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(h.b).ReadAt(p, off) }

func (h holey) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, h.Size()); err != nil {
		return sparse.Fail(err)
	}
	var all []sparse.Extent
	for at := off / 4096 * 4096; at < off+n; at += 4096 {
		kind := sparse.Data
		if sparse.IsZero(h.b[at:min(at+4096, h.Size())]) {
			kind = sparse.Hole
		}
		all = append(all, sparse.Extent{Off: at, Len: 4096, Kind: kind})
	}
	return sparse.Coalesce(sparse.Clip(sparse.Of(slices.Clip(all)...), off, n))
}

// A hole that ends inside a row, and data that end inside one.
func TestHolesInRows(t *testing.T) {
	b := onePV(vgText(1, lvText("t", segText(0, 2, "type = \"striped\"\nstripe_count = 2\nstripe_size = 32\nstripes = [ \"pv0\", 2, \"pv0\", 3 ]")))).bytes()
	for _, at := range []int{2<<16 + 5<<12, 3<<16 + 15<<12} { // in row 1 of four, and the end of the last
		b[1<<20+at] = 1
	}
	v := mustOpen(t, assemble(t, Disk{Name: "pv", R: holey{b}, Size: int64(len(b))}), "t")
	got, err := sparse.Collect(v.Extents(0, v.Size()))
	if want := "[[0,32768) hole [32768,65536) data [65536,98304) hole [98304,131072) data]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v, want %s", got, err, want)
	}
	checkView(t, v)
}
