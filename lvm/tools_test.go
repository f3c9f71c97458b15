package lvm

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"cbt/internal/testtool"
)

// host runs LVM's own tools on loop devices that nobody else sees, without touching device-mapper.
type host struct {
	t     *testing.T
	files []string
	devs  []string
}

func newHost(t *testing.T, sizes ...int64) *host {
	t.Helper()
	testtool.Need(t, "lvm")
	dir := t.TempDir()
	h := &host{t: t}
	filter := ""
	for i, size := range sizes {
		path := filepath.Join(dir, fmt.Sprintf("pv%d.img", i))
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		f.Close()
		h.files = append(h.files, path)
		h.devs = append(h.devs, testtool.Loop(t, path))
		filter += fmt.Sprintf("%q, ", "a|^"+h.devs[i]+"$|")
	}
	conf := fmt.Sprintf("devices { dir=\"/dev\" obtain_device_list_from_udev=0 use_devicesfile=0 hints=\"none\" filter=[ %s\"r|.*|\" ] }\n", filter) +
		"backup { backup=0 archive=0 }\n" +
		fmt.Sprintf("global { activation=0 use_lvmpolld=0 event_activation=0 locking_dir=%q }\n", filepath.Join(dir, "lock"))
	if err := os.WriteFile(filepath.Join(dir, "lvm.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LVM_SYSTEM_DIR", dir)
	t.Setenv("LVM_SUPPRESS_FD_WARNINGS", "1")
	return h
}

func (h *host) lvm(args ...string) string {
	h.t.Helper()
	return testtool.Run(h.t, "lvm", args...)
}

func (h *host) disks() (all []Disk) {
	h.t.Helper()
	for _, path := range h.files {
		all = append(all, openDisk(h.t, path))
	}
	return all
}

// backup returns what vgcfgbackup writes, parsed.
func (h *host) backup(vg string) *Group {
	h.t.Helper()
	file := filepath.Join(filepath.Dir(h.files[0]), "backup")
	h.lvm("vgcfgbackup", "-f", file, vg)
	b, err := os.ReadFile(file)
	if err != nil {
		h.t.Fatal(err)
	}
	g, err := parseGroup(b)
	if err != nil {
		h.t.Fatal(err)
	}
	return g
}

// sameGroup compares the content of two texts, apart from the fields about the texts themselves.
func sameGroup(t *testing.T, got, want *Group) {
	t.Helper()
	if got.Name != want.Name || got.ID != want.ID || got.SeqNo != want.SeqNo || got.ExtentSize != want.ExtentSize || !reflect.DeepEqual(got.Status, want.Status) || !reflect.DeepEqual(got.Tags, want.Tags) {
		t.Errorf("group %+v, want %+v", got, want)
	}
	if len(got.PVs) != len(want.PVs) || len(got.LVs) != len(want.LVs) {
		t.Fatalf("%d PVs and %d LVs, want %d and %d", len(got.PVs), len(got.LVs), len(want.PVs), len(want.LVs))
	}
	for i, m := range got.PVs {
		a, b := *m, *want.PVs[i]
		a.Disk, a.Missing, b.Missing = nil, "", ""
		if !reflect.DeepEqual(a, b) {
			t.Errorf("PV %+v, want %+v", a, b)
		}
	}
	for i, lv := range got.LVs {
		if w := want.LVs[i]; !sameLV(lv, w) || lv.Name != w.Name || !reflect.DeepEqual(lv.Status, w.Status) || lv.CreationTime != w.CreationTime {
			t.Errorf("LV %+v, want %+v", lv, w)
		}
	}
}

// Many commits to a small metadata area: the text wraps around, and the newest one is always found.
func TestToolsWrap(t *testing.T) {
	h := newHost(t, 8<<20)
	h.lvm("pvcreate", "-q", "--metadatasize", "48k", "--dataalignment", "64k", h.devs[0])
	h.lvm("vgcreate", "-q", "-s", "64k", "small", h.devs[0])
	for i := range 12 {
		h.lvm("lvcreate", "-q", "-y", "-an", "-Wn", "-Zn", "-l", "2", "-n", fmt.Sprint("lv", i), "small")
	}
	wrapped := 0
	for i := range 40 {
		h.lvm("vgchange", "-q", "--addtag", fmt.Sprint("tag", i), "small")
		g := assemble(t, h.disks()...)
		if len(g.Tags) != i+1 || g.SeqNo != int64(i+14) || len(g.LVs) != 12 || len(g.Warnings) != 0 {
			t.Fatalf("after commit %d: %d tags, number %d, %d LVs, %q", i, len(g.Tags), g.SeqNo, len(g.LVs), g.Warnings)
		}
		if m := g.PVs[0].Disk.PV.MetadataAreas[0]; m.locn.off+m.locn.size > uint64(m.Size) {
			wrapped++
			sameGroup(t, g, h.backup("small"))
		}
	}
	if wrapped < 2 {
		t.Errorf("the text wrapped %d times", wrapped)
	}
}

// Labels in each of the four sectors; no, one and two metadata areas; ignored ones; bootloader areas; no group.
func TestToolsLabels(t *testing.T) {
	h := newHost(t, 16<<20, 16<<20, 16<<20, 16<<20, 16<<20, 16<<20)
	d := h.devs
	h.lvm("pvcreate", "-q", "--labelsector", "0", "--metadatacopies", "2", d[0])
	h.lvm("pvcreate", "-q", "--labelsector", "2", "--metadatacopies", "0", d[1])
	h.lvm("pvcreate", "-q", "--labelsector", "3", "--bootloaderareasize", "1m", d[2])
	for _, dev := range d[3:] {
		h.lvm("pvcreate", "-q", dev)
	}
	h.lvm("vgcreate", "-q", "-s", "1m", "one", d[0], d[1], d[2])
	h.lvm("vgcreate", "-q", "-s", "512k", "two", d[3], d[4])
	h.lvm("pvchange", "-q", "--metadataignore", "y", d[4])
	h.lvm("lvcreate", "-q", "-y", "-an", "-Wn", "-Zn", "-l", "2", "-n", "lv", "two")
	all := h.disks()
	groups, err := Assemble(all)
	if err != nil || len(groups) != 2 {
		t.Fatal(groups, err)
	}
	sameGroup(t, groups[0], h.backup("one"))
	sameGroup(t, groups[1], h.backup("two"))
	for i, want := range []struct {
		sector               int64
		areas, ignored, boot int
		used                 bool
	}{{0, 2, 0, 0, true}, {2, 0, 0, 0, true}, {3, 1, 0, 1, true}, {1, 1, 0, 0, true}, {1, 1, 1, 0, true}, {1, 1, 0, 0, false}} {
		pv, err := ReadPV(all[i].R, all[i].Size)
		if err != nil {
			t.Fatal(err)
		}
		ignored := 0
		for _, m := range pv.MetadataAreas {
			if m.Ignored {
				ignored++
			}
			if m.Fault != nil {
				t.Error(m.Fault)
			}
		}
		if pv.LabelSector != want.sector || len(pv.MetadataAreas) != want.areas || ignored != want.ignored || len(pv.Bootloader) != want.boot || pv.InUse != want.used {
			t.Errorf("disk %d: %+v", i, pv)
		}
		id := strings.TrimSpace(h.lvm("pvs", "--noheadings", "-o", "pv_uuid", d[i]))
		if pv.UUID != id || pv.DeviceSize != 16<<20 {
			t.Errorf("disk %d: %s of %d bytes, want %s", i, pv.UUID, pv.DeviceSize, id)
		}
	}
	// Two areas with one text each: damage to either is a warning.
	pv, _ := ReadPV(all[0].R, all[0].Size)
	for i, m := range pv.MetadataAreas {
		damaged := all[0]
		damaged.R = &patched{all[0], map[int64][]byte{m.Off + int64(m.locn.off) + 20: {0}}}
		g := assemble(t, damaged)
		if len(g.Warnings) != 3 || !strings.Contains(g.Warnings[0], "text checksum") {
			t.Errorf("area %d: %q", i, g.Warnings)
		}
	}
}

// Volumes from lvcreate lie where lvs shows them.
func TestToolsLayout(t *testing.T) {
	h := newHost(t, 32<<20, 32<<20, 32<<20)
	for _, dev := range h.devs {
		h.lvm("pvcreate", "-q", dev)
	}
	h.lvm(append([]string{"vgcreate", "-q", "-s", "256k", "vg-with.dash"}, h.devs...)...)
	create := func(args ...string) {
		h.lvm(append([]string{"lvcreate", "-q", "-y", "-an", "-Wn", "-Zn"}, args...)...)
	}
	create("-l", "7", "-n", "a", "vg-with.dash", h.devs[1])
	create("-l", "5", "-n", "gap", "vg-with.dash", h.devs[1])
	create("-l", "1", "-n", "b-b", "vg-with.dash", h.devs[1])
	h.lvm("lvremove", "-q", "-y", "vg-with.dash/gap")
	h.lvm("lvextend", "-q", "-l", "+9", "vg-with.dash/a", h.devs[1], h.devs[0])
	create("-l", "12", "-i", "3", "-I", "16k", "-n", "s3", "vg-with.dash")
	create("-l", "12", "-i", "2", "-I", "256k", "-n", "s2", "vg-with.dash")
	create("-l", "6", "--type", "raid0", "-i", "3", "-I", "64k", "-n", "r0", "vg-with.dash")
	create("-l", "3", "--type", "zero", "-n", "z", "vg-with.dash")
	g := assemble(t, h.disks()...)
	sameGroup(t, g, h.backup("vg-with.dash"))
	rows := strings.Split(strings.TrimSpace(h.lvm("lvs", "-a", "--noheadings", "--nosuffix", "--units", "b", "--separator", ";", "--segments",
		"-o", "lv_name,lv_uuid,lv_size,segtype,seg_start,seg_size,seg_le_ranges", "vg-with.dash")), "\n")
	seen := 0
	for _, row := range rows {
		c := strings.Split(strings.TrimSpace(row), ";")
		lv := g.LV(strings.Trim(c[0], "[]"))
		if lv == nil || lv.ID != c[1] || fmt.Sprint(lv.Size) != c[2] {
			t.Errorf("%q: %+v", row, lv)
			continue
		}
		start, _ := strconv.ParseInt(c[4], 10, 64)
		for i := range lv.Segments {
			s := &lv.Segments[i]
			if s.Start*g.ExtentSize != start {
				continue
			}
			seen++
			kind := s.Type
			if kind == "striped" && len(s.Areas) == 1 {
				kind = "linear"
			}
			var ranges []string
			for _, a := range s.Areas {
				ranges = append(ranges, fmt.Sprintf("%s:%d-%d", g.pvs[a.Name].Device, a.Extent, a.Extent+s.Count/int64(len(s.Areas))-1))
			}
			for _, name := range s.Images {
				ranges = append(ranges, fmt.Sprintf("%s:0-%d", name, s.Count/int64(len(s.Images))-1))
			}
			want := strings.NewReplacer("[", "", "]", "", ",", " ").Replace(c[6])
			if kind != c[3] || fmt.Sprint(s.Count*g.ExtentSize) != c[5] || strings.Join(ranges, " ") != want {
				t.Errorf("%q: %s of %d extents in %q", row, kind, s.Count, ranges)
			}
		}
	}
	if seen != len(rows) || seen < 10 {
		t.Errorf("%d of %d segments compared", seen, len(rows))
	}
	if mustOpen(t, g, "s3").Size() != 3<<20 {
		t.Error("s3")
	}
}

// LVM accepts the texts made here, too, and writes them back unchanged.
func TestToolsRestore(t *testing.T) {
	h := newHost(t, 4<<20)
	h.lvm("pvcreate", "-q", "-ff", "-y", "--norestorefile", "--uuid", testUUID, h.devs[0])
	pool := lvText("tp", segText(0, 2, "type = \"thin-pool\"\nmetadata = \"tp_tmeta\"\npool = \"tp_tdata\"\ntransaction_id = 1\nchunk_size = 128\ndiscards = \"passdown\"\nzero_new_blocks = 1\nmessage1 {\ncreate = \"t1\"\n}")) +
		hidden(lvText("tp_tmeta", linear(0, 1, "pv0", 0))) + hidden(lvText("tp_tdata", linear(0, 2, "pv0", 1))) +
		lvText("t1", thinSeg("tp", 7)) +
		lvText("t2", thinSeg("tp", 8)+"\norigin = \"t1\"") + lvText("ext", linear(0, 1, "pv0", 8)) + lvText("t3", thinSeg("tp", 9)+"\nexternal_origin = \"ext\"")
	thick := lvText("org", linear(0, 1, "pv0", 4)) + snapshotOf("org", "snp", 5, "cow_store")
	raid := hidden(lvText("r_rimage_0", linear(0, 1, "pv0", 10))) + hidden(lvText("r_rimage_1", linear(0, 1, "pv0", 11))) +
		hidden(lvText("r_rmeta_0", linear(0, 1, "pv0", 12))) + hidden(lvText("r_rmeta_1", linear(0, 1, "pv0", 13))) +
		lvText("r", segText(0, 1, "type = \"raid1\"\ndevice_count = 2\nregion_size = 4096\nraids = [ \"r_rmeta_0\", \"r_rimage_0\", \"r_rmeta_1\", \"r_rimage_1\" ]"))
	text := vgText(5, pool+thick+raid)
	want, err := parseGroup([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, lv := range want.LVs {
		if lv.Fault != nil {
			t.Error(lv.Fault)
		}
	}
	file := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := testtool.Try(t, "lvm", "vgcfgrestore", "--force", "-y", "-f", file, "vg"); err != nil {
		t.Fatalf("LVM does not take the text: %v\n%s", err, out)
	}
	got := assemble(t, h.disks()...)
	want.SeqNo = got.SeqNo
	if len(got.LVs) != len(want.LVs) {
		t.Fatalf("%d LVs", len(got.LVs))
	}
	for _, lv := range got.LVs {
		if w := want.LV(lv.Name); !sameLV(lv, w) || lv.Visible() != w.Visible() || lv.Origin() != w.Origin() || lv.VolumeSize() != w.VolumeSize() {
			t.Errorf("%+v, want %+v", lv, w)
		}
	}
	if s := got.LV("tp").Segments[0]; s.Messages != 1 || s.TransactionID != 1 || !s.ZeroNewBlocks || s.Discards != "passdown" {
		t.Errorf("%+v", s)
	}
}

func hidden(lv string) string { return strings.Replace(lv, `, "VISIBLE"`, "", 1) }
