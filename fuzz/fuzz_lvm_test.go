package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"testing"

	"cbt/lvm"
	"cbt/lvm/cow"
	"cbt/lvm/thin"
	"cbt/sparse"
)

// lvmSum is the checksum of labels, headers and texts.
func lvmSum(p []byte) uint32 {
	start := uint32(0xf597a6cf)
	return ^crc32.Update(^start, crc32.IEEETable, p)
}

const (
	lvmArea     = 4096      // where the metadata area of lvmDisk begins
	lvmAreaSize = 256 << 10 // bytes
	lvmUUID     = "abcdef-ghij-klmn-opqr-stuv-wxyz-012345"
)

// lvmDisk is the head of a PV of the given size with one metadata area that holds a text.
func lvmDisk(text string, size int64) []byte {
	le := binary.LittleEndian
	b := make([]byte, lvmArea+lvmAreaSize)
	h := b[512:1024]
	copy(h, "LABELONE")
	le.PutUint64(h[8:], 1)
	le.PutUint32(h[20:], 32)
	copy(h[24:], "LVM2 001"+strings.ReplaceAll(lvmUUID, "-", ""))
	le.PutUint64(h[64:], uint64(size))
	le.PutUint64(h[72:], 1<<20)
	le.PutUint64(h[104:], lvmArea)
	le.PutUint64(h[112:], lvmAreaSize)
	m := b[lvmArea:]
	copy(m[4:], " LVM2 x[5A%r0N*>")
	le.PutUint32(m[20:], 1)
	le.PutUint64(m[24:], lvmArea)
	le.PutUint64(m[32:], lvmAreaSize)
	le.PutUint64(m[40:], 512)
	le.PutUint64(m[48:], uint64(len(text)+1))
	copy(m[512:], text)
	lvmSeal(b)
	return b
}

// lvmSeal makes the checksums right: of the labels, of the headers of metadata areas that they list, and of the
// texts that these point to.
func lvmSeal(b []byte) {
	le := binary.LittleEndian
	for s := 0; s < 4 && len(b) >= 512*(s+1); s++ {
		h := b[512*s:][:512]
		if string(h[:8]) == "LABELONE" {
			le.PutUint32(h[16:], lvmSum(h[20:]))
		}
	}
	if len(b) < lvmArea+512 {
		return
	}
	m := b[lvmArea:]
	off, n := le.Uint64(m[40:]), le.Uint64(m[48:])
	if off >= 512 && off < uint64(len(m)) && n < uint64(len(m)) {
		text := append([]byte(nil), m[off:min(off+n, lvmAreaSize, uint64(len(m)))]...)
		if rest := n - uint64(len(text)); rest > 0 && off+n > lvmAreaSize && 512+rest <= uint64(len(m)) {
			text = append(text, m[512:512+rest]...)
		}
		le.PutUint32(m[56:], lvmSum(text))
	}
	le.PutUint32(m, lvmSum(m[4:512]))
}

// headed is a disk of which only the head is in memory. Each block of the rest holds its number.
type headed struct {
	head []byte
	size int64
}

func (h headed) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, h.size)
	for i := range p {
		if at := off + int64(i); at < int64(len(h.head)) {
			p[i] = h.head[at]
		} else {
			p[i] = byte(at>>12) | 1
		}
	}
	return len(p), eof
}

// lvmBlame checks that an error says that the input is to blame, or what is refused or missing.
func lvmBlame(t *testing.T, err error) {
	var fe *sparse.FormatError
	var refused *lvm.RefusedError
	var missing *lvm.MissingError
	switch {
	case errors.As(err, &fe), errors.As(err, &refused), errors.As(err, &missing):
	case errors.Is(err, thin.ErrUnformatted), errors.Is(err, thin.ErrNoDevice), errors.Is(err, cow.ErrUninitialized), errors.Is(err, cow.ErrInvalidated):
	case strings.Contains(err.Error(), "is smaller than its snapshot"), strings.Contains(err.Error(), "type error"):
	default:
		t.Errorf("who is to blame? %v", err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %v", err)
	}
}

// FuzzLVMLabel reads any bytes as a PV.
func FuzzLVMLabel(f *testing.F) {
	good := lvmDisk(lvmText(lvmLinear), 4<<20)
	for _, b := range [][]byte{good, good[:6000], good[:1000], nil} {
		f.Add(b[:min(len(b), 8<<10)], true)
	}
	wrap := bytes.Clone(good[:12<<10])
	binary.LittleEndian.PutUint64(wrap[lvmArea+40:], lvmAreaSize-512)
	f.Add(wrap, true)
	f.Add(good[:8<<10], false)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		b = bytes.Clone(b)
		if seal {
			lvmSeal(b)
		}
		for _, size := range []int64{int64(len(b)), max(int64(len(b)), 4<<20)} {
			d := headed{b, size}
			pv, err := lvm.ReadPV(d, size)
			if (pv == nil) == (err == nil) {
				t.Fatalf("%v, %v", pv, err)
			}
			if err != nil {
				if err != lvm.ErrNoLabel {
					lvmBlame(t, err)
				}
				continue
			}
			for _, m := range pv.MetadataAreas {
				if m.Fault != nil {
					lvmBlame(t, m.Fault)
				}
				if m.Text != nil && (m.Fault != nil || m.Ignored || int64(len(m.Text)) > m.Size) {
					t.Errorf("%+v", m)
				}
			}
			lvmGroups(t, []lvm.Disk{{Name: "disk", PV: pv, R: d, Size: size}})
		}
	})
}

// FuzzLVMText reads any text as that of a group, and all volumes of it.
func FuzzLVMText(f *testing.F) {
	for _, lvs := range []string{lvmLinear, lvmStriped, lvmRAID, lvmSnapshot, lvmThin, ""} {
		f.Add(lvmText(lvs))
	}
	f.Add(lvmText(lvmLinear + lvmStriped + lvmRAID + lvmSnapshot + lvmThin))
	f.Add("a { b = [ 1, 'x' 2.5 ] c = -010 # d\n \"e f\" { } }\x00 g")
	f.Fuzz(func(t *testing.T, text string) {
		root, err := lvm.ParseText([]byte(text))
		if (root == nil) == (err == nil) {
			t.Fatalf("%v, %v", root, err)
		}
		if err != nil {
			lvmBlame(t, err)
		}
		if len(text) > lvmAreaSize-1024 {
			return
		}
		const size = 4 << 20
		lvmGroups(t, []lvm.Disk{{Name: "disk", R: headed{lvmDisk(text, size), size}, Size: size}})
	})
}

// lvmGroups does all that can be done with what is on some disks.
func lvmGroups(t *testing.T, disks []lvm.Disk) {
	groups, err := lvm.Assemble(disks)
	if err != nil {
		if groups != nil {
			t.Error("groups and an error")
		}
		lvmBlame(t, err)
		return
	}
	for _, g := range groups {
		for _, lv := range g.LVs[:min(len(g.LVs), 20)] {
			lv.Type()
			lv.Origin()
			lv.Pool()
			lv.Visible()
			v, err := g.Open(lv.Name, lvm.OpenOptions{})
			if (v == nil) == (err == nil) {
				t.Fatalf("%s: %v, %v", lv.Name, v, err)
			}
			if err != nil {
				lvmBlame(t, err)
				continue
			}
			if v.LV() == lv && v.Size() != lv.VolumeSize() {
				t.Errorf("%s has %d bytes, and its volume %d", lv.Name, lv.VolumeSize(), v.Size())
			}
			lvmRead(t, v)
		}
	}
}

func lvmRead(t *testing.T, v *lvm.Volume) {
	pos, rows := int64(0), 0
	for e, err := range v.Extents(0, v.Size()) {
		if err != nil {
			lvmBlame(t, err)
			return
		}
		if e.Off != pos || e.Len <= 0 {
			t.Fatalf("%v after %d", e, pos)
		}
		pos = e.End()
		p := make([]byte, min(e.Len, 16<<10))
		n, err := v.ReadAt(p, e.Off)
		if err != nil && err != io.EOF {
			lvmBlame(t, err)
		} else if n != len(p) {
			t.Fatalf("%d of %d bytes", n, len(p))
		} else if e.Kind.ReadsZero() && !sparse.IsZero(p) {
			t.Fatalf("%v is not zero", e)
		}
		if rows++; rows == 100 {
			return
		}
	}
	if pos != v.Size() {
		t.Fatalf("extents end at %d of %d", pos, v.Size())
	}
}

// lvmText is the text of a group of 32 extents of 64 KiB on one PV.
func lvmText(lvs string) string {
	return "vg {\nid = \"VGVGVG-ghij-klmn-opqr-stuv-wxyz-012345\"\nseqno = 1\nstatus = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\nextent_size = 128\n" +
		"physical_volumes {\npv0 {\nid = \"" + lvmUUID + "\"\nstatus = []\npe_start = 2048\npe_count = 32\n}\n}\nlogical_volumes {\n" + lvs + "}\n}\n" +
		"contents = \"Text Format Volume Group\"\nversion = 1\n"
}

func lvmLV(name string, extents int, rest string) string {
	return fmt.Sprintf("%s {\nid = %q\nstatus = [\"READ\", \"VISIBLE\"]\nsegment_count = 1\nsegment1 {\nstart_extent = 0\nextent_count = %d\n%s\n}\n}\n", name, lvmUUID, extents, rest)
}

func lvmOn(name string, extents, from int) string {
	return lvmLV(name, extents, fmt.Sprintf("type = \"striped\"\nstripe_count = 1\nstripes = [ \"pv0\", %d ]", from))
}

var (
	lvmLinear   = lvmOn("lin", 2, 0) + lvmLV("nest", 1, "type = \"mirror\"\nmirror_count = 1\nmirrors = [ \"lin\", 1 ]") + lvmLV("err", 1, "type = \"error\"") + lvmLV("zero", 9, "type = \"zero\"")
	lvmStriped  = lvmLV("str", 4, "type = \"striped\"\nstripe_count = 2\nstripe_size = 8\nstripes = [ \"pv0\", 2, \"pv0\", 5 ]")
	lvmRAID     = lvmOn("i_rimage_0", 1, 8) + lvmOn("i_rimage_1", 1, 9) + lvmOn("i_rimage_2", 1, 10) + lvmOn("i_rimage_3", 1, 11) + lvmLV("r6", 2, "type = \"raid6_nc\"\ndevice_count = 4\nstripe_size = 16\nraids = [ \"i_rimage_0\", \"i_rimage_1\", \"i_rimage_2\", \"i_rimage_3\" ]")
	lvmSnapshot = lvmOn("org", 2, 12) + lvmOn("snp", 1, 14) + lvmLV("snapshot0", 2, "type = \"snapshot\"\nchunk_size = 8\norigin = \"org\"\ncow_store = \"snp\"")
	lvmThin     = lvmOn("tm", 1, 16) + lvmOn("td", 3, 17) + lvmLV("tp", 3, "type = \"thin-pool\"\nmetadata = \"tm\"\npool = \"td\"\ntransaction_id = 1\nchunk_size = 128") + lvmOn("ext", 1, 20) + lvmLV("t", 5, "type = \"thin\"\nthin_pool = \"tp\"\ntransaction_id = 0\ndevice_id = 1\nexternal_origin = \"ext\"")
)

// The seeds are volumes that can be read.
func TestLVMSeeds(t *testing.T) {
	const size = 4 << 20
	text := lvmText(lvmLinear + lvmStriped + lvmRAID + lvmSnapshot + lvmThin)
	groups, err := lvm.Assemble([]lvm.Disk{{Name: "disk", R: headed{lvmDisk(text, size), size}, Size: size}})
	if err != nil || len(groups) != 1 {
		t.Fatal(groups, err)
	}
	for _, name := range []string{"lin", "nest", "err", "zero", "str", "r6", "org", "td", "ext"} {
		if _, err := groups[0].Open(name, lvm.OpenOptions{}); err != nil {
			t.Error(err)
		}
	}
	// Nothing but what the disk holds is wrong with these.
	for name, want := range map[string]string{"snp": "magic", "t": "superblock"} {
		if _, err := groups[0].Open(name, lvm.OpenOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
