package lvm

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

// Hazard 4: texts that are well formed but not a group.
func TestHazard4Group(t *testing.T) {
	good := vgText(1, lvText("a", linear(0, 1, "pv0", 0)))
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the text has no %q", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for _, c := range []struct{ text, want string }{
		{good + "vg2 { }\n", `"vg2": a second volume group`},
		{replace("vg {", "-vg {"), `not a name`},
		{replace("vg {", strings.Repeat("v", 128)+" {"), `not a name`},
		{replace("vg {", ".. {"), `not a name`},
		{replace(`contents = "Text Format Volume Group"`, ""), "contents is missing"},
		{replace("Text Format Volume Group", "x"), "not the text of a volume group"},
		{replace("version = 1", "version = 2"), "version is not in 1..1"},
		{replace("version = 1", "version = 1.0"), "version is not an integer"},
		{replace("seqno = 1", ""), "seqno is missing"},
		{replace("seqno = 1", "seqno = -1"), "seqno is not in"},
		{replace("seqno = 1", "seqno { }"), "seqno is not an integer"},
		{replace("extent_size = 128", "extent_size = 0"), "extent_size is not in"},
		{replace("extent_size = 128", "extent_size = 4294967296"), "extent_size is not in"},
		{replace(`"RESIZEABLE"`, `"NEW_WORD"`), `"NEW_WORD": a status that is not known`},
		{replace(`"RESIZEABLE"`, `1`), `status has an element that is not a string`},
		{replace(testVGID, "x"), "not a UUID"},
		{replace(testUUID, "x"), "not a UUID"},
		{replace("physical_volumes {", "x {"), "physical_volumes is missing"},
		{replace("physical_volumes {", "physical_volumes { y = 1 "), `"y": not a physical volume`},
		{replace("logical_volumes {", "logical_volumes { y = 1 "), `"y": not a logical volume`},
		{replace("pe_start = 2048", ""), "pe_start is missing"},
		{replace("pe_start = 2048", "pe_start = -1"), "pe_start is not in"},
		{replace("pe_start = 2048", fmt.Sprint("pe_start = ", math.MaxInt64)), "pe_start is not in"},
		{replace("pe_start = 2048", fmt.Sprint("pe_start = ", math.MaxInt64/512)), "extents past 2^63 bytes"},
		{replace("pe_count = 16", "pe_count = 4294967296"), "pe_count is not in"},
		{vgText(1, "", testUUID, testUUID), "a second physical volume with this UUID"},
		{strings.Replace(vgText(1, "", testUUID, testUUID2), "pv1 {", "pv0 {", 1), "a second item with this key"},
		{vgText(1, lvText("a", linear(0, 1, "pv0", 0))+lvText("a", linear(0, 1, "pv0", 1))), "a second item with this key"},
		{"contents = \"Text Format Volume Group\" version = 1", "no volume group"},
		{"", "contents is missing"},
	} {
		g, err := parseGroup([]byte(c.text))
		if g != nil {
			t.Errorf("%s: a group", c.want)
		}
		wantFault(t, err, c.want)
	}
}

// One faulty volume is refused, and the others are read.
func TestHazard4And6Volumes(t *testing.T) {
	two := func(a, b string) string {
		return segText(0, 4, fmt.Sprintf("type = \"striped\"\nstripe_count = 2\nstripe_size = 8\nstripes = [ %s, %s ]", a, b))
	}
	raid := func(kind string, rest ...string) string {
		return segText(0, 2, fmt.Sprintf("type = %q\n%s", kind, strings.Join(rest, "\n")))
	}
	images := lvText("i0", linear(0, 2, "pv0", 8)) + lvText("i1", linear(0, 2, "pv0", 10))
	for _, c := range []struct{ lvs, want string }{
		// 4
		{strings.Replace(lvText("bad", linear(0, 1, "pv0", 0)), "segment_count = 1", "segment_count = 4294967296", 1), "segment_count is not in"},
		{strings.Replace(lvText("bad", linear(0, 1, "pv0", 0)), "segment_count = 1", "segment_count = 0", 1), "segment_count is not in"},
		{strings.Replace(lvText("bad", linear(0, 1, "pv0", 0)), "segment_count = 1", "segment_count = 2", 1), "1 segments are there"},
		{strings.Replace(lvText("bad", linear(0, 1, "pv0", 0)), "segment1", "segment2", 1), "not one of the 1 segments"},
		{strings.Replace(lvText("bad", linear(0, 1, "pv0", 0)), "segment1", "segment01", 1), "not one of the 1 segments"},
		{strings.Replace(lvText("bad", linear(0, 1, "pv0", 0)), "segment1", "segment99999999999999999999", 1), "not one of the 1 segments"},
		{strings.Replace(lvText("bad", linear(0, 1, "pv0", 0)), `"VISIBLE"`, `"SOMETHING"`, 1), "a status that is not known"},
		{strings.Replace(lvText("bad", linear(0, 1, "pv0", 0)), `id = "`, `id = "x`, 1), "not a UUID"},
		// 6
		{lvText("bad", linear(0, 2, "pv0", 0), linear(1, 2, "pv0", 2)), "overlaps the one before it, which ends at extent 2"},
		{lvText("bad", linear(0, 2, "pv0", 0), linear(3, 2, "pv0", 2)), "leaves a gap from extent 2"},
		{lvText("bad", linear(1, 2, "pv0", 0)), "leaves a gap from extent 0"},
		{lvText("bad", linear(0, 0, "pv0", 0)), "extent_count is not in"},
		{lvText("bad", linear(0, 2, "pv0", 15)), "needs extents that pv0, of 16 extents, does not have"},
		{lvText("bad", linear(0, 17, "pv0", 0)), "needs extents that pv0"},
		{lvText("bad", linear(0, 1, "pv0", -1)), "not a name and an extent"},
		{lvText("bad", linear(0, 1, "pv0", math.MaxUint32)), "needs extents that pv0"},
		{lvText("bad", linear(0, math.MaxUint32, "pv0", 1)), "needs extents that pv0"},
		{lvText("bad", linear(0, 1, "pv9", 0)), `"pv9": bad names a volume that is not there`},
		{lvText("bad", linear(0, 2, "pv0", 0), linear(2, 2, "pv0", 1)), "bad uses extents of pv0 that bad uses too"},
		{lvText("bad", linear(0, 2, "pv0", 15-1)), "bad uses extents of pv0 that good uses too"},
		{lvText("bad", segText(0, 4, "type = \"striped\"\nstripe_count = 0\nstripes = [ ]")), "stripe_count is not in"},
		{lvText("bad", segText(0, 4, "type = \"striped\"\nstripe_count = 3\nstripe_size = 8\nstripes = [ \"pv0\", 0, \"pv0\", 4, \"pv0\", 8 ]")), "3 stripes do not divide the extents"},
		{lvText("bad", strings.Replace(two(`"pv0", 0`, `"pv0", 4`), "stripe_size = 8", "stripe_size = 0", 1)), "stripe_size is not in"},
		{lvText("bad", strings.Replace(two(`"pv0", 0`, `"pv0", 4`), "stripe_size = 8\n", "", 1)), "stripe_size is missing"},
		{lvText("bad", strings.Replace(two(`"pv0", 0`, `"pv0", 4`), "stripe_size = 8\n", "stripe_size = 24\n", 1)), "the stripe size does not divide"},
		{lvText("bad", two(`"pv0", 0`, `"pv0"`)), "stripes does not have 2 pairs"},
		{lvText("bad", two(`"pv0", 0`, `0, "pv0"`)), "not a name and an extent"},
		{lvText("bad", segText(0, 4, "type = \"striped\"\nstripe_count = 1048576\nstripe_size = 8\nstripes = [ ]")), "stripes does not have 1048576 pairs"},
		{lvText("bad", linear(0, 1, "bad", 0)), "it is made of itself: "},
		{lvText("bad", linear(0, 1, "b", 0)) + lvText("b", linear(0, 1, "bad", 0)), "it is made of itself: bad -> "},
		{images + lvText("bad", raid("raid1", "device_count = 3", `raids = [ "i0", "i1" ]`)), "images, and 0 superblocks, of 3 devices"},
		{images + lvText("bad", raid("raid1", "device_count = 2", `raids = [ "i0", "i9" ]`)), `"i9": bad names a volume that is not there`},
		{images + lvText("bad", raid("raid1", "device_count = 2", `raids = [ "i0", "i0" ]`)), "bad uses extents of i0 that bad uses too"},
		{images + lvText("bad", raid("raid1", "device_count = 2", `raids = [ "bad", "i1" ]`)), "it is made of itself"},
		{images + lvText("bad", strings.Replace(raid("raid1", "device_count = 2", `raids = [ "i0", "i1" ]`), "extent_count = 2", "extent_count = 3", 1)), "image i0 has fewer than"},
		{images + lvText("bad", raid("raid5", "device_count = 2", "stripe_size = 0", `raids = [ "i0", "i1" ]`)), "stripe_size is not in"},
		{images + lvText("bad", raid("raid6", "device_count = 2", "stripe_size = 8", `raids = [ "i0", "i1" ]`)), "not enough devices"},
		{images + lvText("bad", raid("raid1", "device_count = 65", "raids = [ "+strings.Repeat(`"i0", `, 65)+"]")), "more than 64 devices"},
		{images + lvText("bad", raid("raid10", "device_count = 2", "data_copies = 3", "stripe_size = 8", `raids = [ "i0", "i1" ]`)), "more copies"},
		{images + lvText("bad", linear(0, 1, "pv0", 0), strings.Replace(raid("raid1", "device_count = 2", `raids = [ "i0", "i1" ]`), "start_extent = 0", "start_extent = 1", 1)), "not the whole volume"},
		{images + lvText("bad", segText(0, 2, "type = \"mirror\"\nmirror_count = 2\nmirrors = [ \"i0\", 0 ]")), "mirrors does not have 2 pairs"},
		{images + lvText("bad", segText(0, 2, "type = \"mirror\"\nmirror_count = 1\nmirror_log = \"x\"\nmirrors = [ \"i0\", 0 ]")), `"x": bad names`},
		{lvText("bad", segText(0, 1, "type = \"snapshot\"\nchunk_size = 8\norigin = \"good\"\ncow_store = \"none\"")), `"none": bad names`},
		{lvText("bad", segText(0, 1, "type = \"snapshot\"\nchunk_size = 0\norigin = \"good\"\ncow_store = \"good\"")), "chunk_size is not in"},
		{lvText("bad", segText(0, 1, "type = \"snapshot\"\nchunk_size = 8\ncow_store = \"good\"")), "origin is missing"},
		// 7
		{lvText("bad", thinSeg("nopool", 1)), `"nopool": bad names a thin pool that is none`},
		{lvText("bad", thinSeg("good", 1)), `"good": bad names a thin pool that is none`},
		{lvText("bad", thinSeg("good", 1<<24)), "device_id is not in 0..16777215"},
	} {
		g := groupOf(t, lvText("good", linear(0, 1, "pv0", 15))+c.lvs)
		v, err := g.Open("bad", OpenOptions{})
		if v != nil {
			t.Errorf("%s: a volume", c.want)
		}
		wantFault(t, err, c.want)
		if strings.Contains(c.want, "good uses too") {
			continue
		}
		if b := mustRead(t, mustOpen(t, g, "good")); b[0] != 16 || b[len(b)-1] != 16 {
			t.Errorf("%s: good holds %d", c.want, b[0])
		}
	}
	// Two inside one, not only the first of them.
	g := groupOf(t, lvText("outer", linear(0, 12, "pv0", 0))+lvText("in1", linear(0, 1, "pv0", 2))+lvText("in2", linear(0, 1, "pv0", 6))+lvText("behind", linear(0, 1, "pv0", 12)))
	for _, name := range []string{"outer", "in1", "in2"} {
		wantOpenFault(t, g, name, "uses extents of pv0 that ")
	}
	mustOpen(t, g, "behind")
	// Deep, but not in a circle.
	var deep strings.Builder
	deep.WriteString(lvText("l0", linear(0, 1, "pv0", 3)))
	for i := 1; i < 60; i++ {
		deep.WriteString(lvText(fmt.Sprint("l", i), linear(0, 1, fmt.Sprint("l", i-1), 0)))
	}
	g = groupOf(t, deep.String())
	wantOpenFault(t, g, "l59", "nested more than 32 deep")
	if b := mustRead(t, mustOpen(t, g, "l25")); b[0] != 4 {
		t.Errorf("l25 holds %d", b[0])
	}
	if b := mustRead(t, mustOpen(t, g, "l45")); b[0] != 4 {
		t.Errorf("l45 holds %d", b[0])
	}
}

func thinSeg(pool string, id int) string {
	return segText(0, 1, fmt.Sprintf("type = \"thin\"\nthin_pool = %q\ntransaction_id = 0\ndevice_id = %d", pool, id))
}

// Well formed, but not read: a *RefusedError with the reason.
func TestRefused(t *testing.T) {
	images := lvText("i0", linear(0, 1, "pv0", 8)) + lvText("i1", linear(0, 1, "pv0", 10)) + lvText("i2", linear(0, 1, "pv0", 12))
	r1 := "device_count = 2\nraids = [ \"i0\", \"i1\" ]"
	r5 := "device_count = 3\nstripe_size = 8\nraids = [ \"i0\", \"i1\", \"i2\" ]"
	for _, c := range []struct{ lvs, want string }{
		{lvText("bad", segText(0, 1, `type = "cache"`)), "cache: a cache may hold newer data"},
		{lvText("bad", segText(0, 1, `type = "cache-pool"`)), "a cache pool is no volume"},
		{lvText("bad", segText(0, 1, `type = "cache+METADATA_FORMAT"`)), "a cache may hold newer data"},
		{lvText("bad", segText(0, 1, `type = "writecache"`)), "a writecache may hold newer data"},
		{lvText("bad", segText(0, 1, `type = "integrity"`)), "integrity"},
		{lvText("bad", segText(0, 1, `type = "vdo"`)), "VDO"},
		{lvText("bad", segText(0, 1, `type = "vdo-pool"`)), "VDO"},
		{lvText("bad", segText(0, 1, `type = "new"`)), `"new" is a type that is not known`},
		{lvText("bad", segText(0, 1, `type = ""`)), `"" is a type that is not known`},
		{lvText("bad", segText(0, 1, `type = "raid7"`)), `"raid7" is a layout that is not known`},
		{strings.Replace(lvText("bad", linear(0, 1, "pv0", 1)), `"striped"`, `"striped+NEWFLAG"`, 1), `"striped+NEWFLAG" has a flag that is not known`},
		{lvText("bad", linear(0, 1, "deep", 0)) + lvText("deep", segText(0, 1, `type = "writecache"`)), "vg/deep: not read: writecache"},
		{images + lvText("bad", segText(0, 2, "type = \"raid5+RESHAPE\"\n"+r5)), "being reshaped (RESHAPE)"},
		{images + lvText("bad", segText(0, 2, "type = \"raid5+RESHAPE_DELTA_DISKS_PLUS\"\n"+r5)), "being reshaped"},
		{images + lvText("bad", segText(0, 2, "type = \"raid5\"\ndata_offset = 128\n"+r5)), "being reshaped (data_offset)"},
		{images + lvText("bad", segText(0, 2, "type = \"raid5\"\nreshape_count = 1\n"+r5)), "being reshaped (reshape_count)"},
		{images + strings.Replace(lvText("bad", segText(0, 2, "type = \"raid5\"\n"+r5)), `"VISIBLE"`, `"VISIBLE", "REBUILD"`, 1), "being reshaped or rebuilt"},
		{strings.Replace(images, `"VISIBLE"`, `"REBUILD"`, 1) + lvText("bad", segText(0, 2, "type = \"raid5\"\n"+r5)), "i0 is being rebuilt"},
		{strings.ReplaceAll(images, `"VISIBLE"`, `"REBUILD"`) + lvText("bad", segText(0, 1, "type = \"raid1\"\n"+r1)), "i0 is being rebuilt"},
		{snapshotOf("good", "bad", 4, "merging_store"), "it is being merged into good"},
		{snapshotOf("bad", "other", 4, "merging_store") + lvText("bad", linear(0, 1, "pv0", 7)), "the snapshot other is being merged into it"},
	} {
		g := groupOf(t, lvText("good", linear(0, 1, "pv0", 15))+c.lvs)
		v, err := g.Open("bad", OpenOptions{})
		if re := asRefused(err); v != nil || re == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, %v, want %s", v, err, c.want)
		}
	}
	// A raid1 with one image that is being rebuilt is read from the other.
	g := groupOf(t, strings.Replace(images, `"VISIBLE"`, `"REBUILD"`, 1)+lvText("r", segText(0, 1, "type = \"raid1\"\n"+r1)))
	if b := mustRead(t, mustOpen(t, g, "r")); b[0] != 11 {
		t.Errorf("read from extent %d", b[0])
	}
	if _, err := g.Open("nothing", OpenOptions{}); err == nil || err.Error() != `volume group vg has no logical volume "nothing"` {
		t.Error(err)
	}
}

// snapshotOf returns a thick snapshot and its store, in extent at.
func snapshotOf(origin, name string, at int, key string) string {
	return strings.Replace(lvText(name, linear(0, 1, "pv0", at)), `, "VISIBLE"`, "", 1) +
		lvText("snapshot0", segText(0, 1, fmt.Sprintf("type = \"snapshot\"\nchunk_size = 8\norigin = %q\n%s = %q", origin, key, name)))
}

// Hazard 7: one device_id twice, and the valid chunk sizes of a pool.
func TestHazard7Pool(t *testing.T) {
	pool := func(chunk string) string {
		return lvText("tp", segText(0, 2, "type = \"thin-pool\"\nmetadata = \"tm\"\npool = \"td\"\ntransaction_id = 0\nchunk_size = "+chunk)) +
			lvText("tm", linear(0, 1, "pv0", 0)) + lvText("td", linear(0, 2, "pv0", 1))
	}
	g := groupOf(t, pool("128")+lvText("a", thinSeg("tp", 3))+lvText("b", thinSeg("tp", 3))+lvText("c", thinSeg("tp", 4)))
	wantOpenFault(t, g, "a", "a and b have one device_id in pool tp")
	wantOpenFault(t, g, "b", "a and b have one device_id in pool tp")
	// There is no superblock in extent 0, which is full of ones.
	wantOpenFault(t, g, "c", "superblock")
	for chunk, want := range map[string]string{
		"0": "chunk_size is not in", "127": "chunk_size is not in", "129": "chunk_size is not a multiple of 128", "2097153": "chunk_size is not in", "4294967424": "chunk_size is not in",
	} {
		g := groupOf(t, pool(chunk)+lvText("c", thinSeg("tp", 4)))
		wantOpenFault(t, g, "c", want)
	}
	for _, loop := range []string{
		// The data of the pool on a volume of its own, and origins in a loop.
		lvText("tp", segText(0, 1, "type = \"thin-pool\"\nmetadata = \"tm\"\npool = \"td\"\ntransaction_id = 0\nchunk_size = 128")) +
			lvText("tm", thinSeg("tp", 2)) + lvText("td", linear(0, 2, "pv0", 1)) + lvText("c", thinSeg("tp", 1)),
		snapshotOf("c", "c", 3, "cow_store"),
	} {
		wantOpenFault(t, groupOf(t, loop), "c", "it is made of itself")
	}
}

func TestSegments(t *testing.T) {
	g := groupOf(t, lvText("a", linear(3, 1, "pv0", 9), linear(0, 1, "pv0", 7), linear(1, 2, "pv0", 2))+
		lvText("z", segText(0, 1, `type = "zero"`), linear(1, 1, "pv0", 0), segText(2, 2, `type = "zero"`))+
		lvText("e", linear(0, 1, "pv0", 14), segText(1, 1, `type = "error"`))+
		lvText("s", segText(0, 2, "type = \"striped\"\nstripe_count = 2\nstripe_size = 8\nstripes = [ \"pv0\", 4, \"pv0\", 5 ]"))+
		lvText("old", segText(0, 1, "type = \"linear\"\nstripe_count = 1\nstripes = [ \"pv0\", 6 ]"))+
		strings.Replace(lvText("pvmove0", segText(0, 1, "type = \"mirror\"\nmirror_count = 2\nextents_moved = 0\nmirrors = [ \"pv0\", 10, \"pv0\", 11 ]")), `"VISIBLE"`, `"PVMOVE", "LOCKED"`, 1)+
		lvText("moving", linear(0, 1, "pvmove0", 0)))
	for name, extents := range map[string][]byte{"a": {8, 3, 4, 10}, "z": {0, 1, 0, 0}, "old": {7}, "moving": {11}} {
		var want []byte
		for _, n := range extents {
			want = append(want, slices.Repeat([]byte{n}, 64<<10)...)
		}
		sparsetest.View(t, mustOpen(t, g, name), want)
	}
	var want []byte
	for range 16 {
		want = append(want, slices.Repeat([]byte{5}, 4096)...)
		want = append(want, slices.Repeat([]byte{6}, 4096)...)
	}
	sparsetest.View(t, mustOpen(t, g, "s"), want)
	extents, err := sparse.Collect(mustOpen(t, g, "z").Extents(0, 256<<10))
	if err != nil || fmt.Sprint(extents) != "[[0,65536) hole [65536,131072) data [131072,262144) hole]" {
		t.Error(extents, err)
	}
	v := mustOpen(t, g, "e")
	b := make([]byte, 100)
	if n, err := v.ReadAt(b, 64<<10-50); n != 50 || err != errErrorTarget {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := v.ReadAt(b, 128<<10-50); n != 0 || err != errErrorTarget {
		t.Errorf("%d, %v", n, err)
	}
	if again := mustOpen(t, g, "e"); again != v {
		t.Error("two volumes of one name")
	}
	if mustOpen(t, g, "a").LV().Type() != "linear" || g.LV("s").Type() != "striped" || g.LV("pvmove0").Visible() || !g.LV("a").Visible() {
		t.Error("types")
	}
}
