package lvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

var le = binary.LittleEndian

const (
	testUUID  = "abcdef-ghij-klmn-opqr-stuv-wxyz-012345"
	testUUID2 = "ABCDEF-ghij-klmn-opqr-stuv-wxyz-012345"
	testVGID  = "VGVGVG-ghij-klmn-opqr-stuv-wxyz-012345"
)

// lvid returns a UUID for volume n.
func lvid(n int) string { return fmt.Sprintf("%06d-ghij-klmn-opqr-stuv-wxyz-012345", n) }

// pvImage is a physical volume made byte by byte.
type pvImage struct {
	size   int64
	sector int64
	uuid   string
	areas  []Area // of metadata
	text   string
	at     uint64 // of the text in its area; 0: 512
	flags  uint32
}

func (p pvImage) bytes() []byte {
	b := make([]byte, p.size)
	if p.uuid == "" {
		p.uuid = testUUID
	}
	h := b[p.sector*SectorSize:][:SectorSize]
	copy(h, labelMagic)
	le.PutUint64(h[8:], uint64(p.sector))
	le.PutUint32(h[20:], labelHeader)
	copy(h[24:], labelType)
	q := h[labelHeader:]
	copy(q, strings.ReplaceAll(p.uuid, "-", ""))
	le.PutUint64(q[32:], uint64(p.size))
	le.PutUint64(q[40:], 1<<20)
	lists := q[40+32:]
	for i, a := range p.areas {
		le.PutUint64(lists[16*i:], uint64(a.Off))
		le.PutUint64(lists[16*i+8:], uint64(a.Size))
		p.area(b, a)
	}
	ext := lists[16*(len(p.areas)+1):]
	le.PutUint32(ext, 2)
	le.PutUint32(ext[4:], pvUsed)
	sealLabel(h)
	return b
}

func sealLabel(h []byte) { le.PutUint32(h[16:], checksum(h[20:512])) }
func sealMDA(h []byte)   { le.PutUint32(h, checksum(h[4:512])) }

func (p pvImage) area(b []byte, a Area) {
	h := b[a.Off:]
	copy(h[4:], mdaMagic)
	le.PutUint32(h[20:], 1)
	le.PutUint64(h[24:], uint64(a.Off))
	le.PutUint64(h[32:], uint64(a.Size))
	if p.text != "" {
		text := append([]byte(p.text), 0)
		if p.at == 0 {
			p.at = 512
		}
		le.PutUint64(h[40:], p.at)
		le.PutUint64(h[48:], uint64(len(text)))
		le.PutUint32(h[56:], checksum(text))
		le.PutUint32(h[60:], p.flags)
		n := copy(h[p.at:a.Size], text)
		copy(h[512:], text[n:])
	}
	sealMDA(h)
}

// onePV returns an image with one area of 64 KiB at 4096, and extents of 64 KiB from 1 MiB on.
func onePV(text string) pvImage {
	return pvImage{size: 2 << 20, sector: 1, areas: []Area{{4096, 64 << 10}}, text: text}
}

func diskOf(name string, b []byte) Disk {
	return Disk{Name: name, R: bytes.NewReader(b), Size: int64(len(b))}
}

// vgText returns the text of a group vg with 16 extents of 64 KiB on each of its PVs, and some
// volumes.
func vgText(seqno int, lvs string, pvs ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "vg {\nid = %q\nseqno = %d\nstatus = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\nflags = []\nextent_size = 128\nmax_lv = 0\nmax_pv = 0\n", testVGID, seqno)
	b.WriteString("physical_volumes {\n")
	if pvs == nil {
		pvs = []string{testUUID}
	}
	for i, id := range pvs {
		fmt.Fprintf(&b, "pv%d {\nid = %q\ndevice = \"/dev/sd%c\"\nstatus = [\"ALLOCATABLE\"]\nflags = []\ndev_size = 4096\npe_start = 2048\npe_count = 16\n}\n", i, id, 'a'+i)
	}
	b.WriteString("}\n")
	if lvs != "" {
		b.WriteString("logical_volumes {\n" + lvs + "}\n")
	}
	b.WriteString("}\ncontents = \"Text Format Volume Group\"\nversion = 1\ndescription = \"\"\ncreation_host = \"h\"\ncreation_time = 1\n")
	return b.String()
}

// lvText returns a visible volume with the given segments, which are given without their braces.
func lvText(name string, segments ...string) string {
	var b strings.Builder
	n := 0
	for _, c := range name {
		n = (n*31 + int(c)) % 1000000
	}
	fmt.Fprintf(&b, "%s {\nid = %q\nstatus = [\"READ\", \"WRITE\", \"VISIBLE\"]\nsegment_count = %d\n", name, lvid(n), len(segments))
	for i, s := range segments {
		fmt.Fprintf(&b, "segment%d {\n%s\n}\n", i+1, s)
	}
	b.WriteString("}\n")
	return b.String()
}

func segText(start, count int, rest string) string {
	return fmt.Sprintf("start_extent = %d\nextent_count = %d\n%s", start, count, rest)
}

func linear(start, count int, on string, from int) string {
	return segText(start, count, fmt.Sprintf("type = \"striped\"\nstripe_count = 1\nstripes = [ %q, %d ]", on, from))
}

// groupOf assembles the group of one PV that holds the volumes. Each of its extents is filled with
// its number.
func groupOf(t testing.TB, lvs string) *Group {
	t.Helper()
	return assemble(t, diskOf("pv.img", numbered(onePV(vgText(1, lvs)).bytes())))
}

func numbered(b []byte) []byte {
	for i := range 16 {
		copy(b[1<<20+i<<16:], bytes.Repeat([]byte{byte(i + 1)}, 1<<16))
	}
	return b
}

// wantFault checks that the error blames the input, contains the text want, and has one line.
func wantFault(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", want)
		return
	}
	if !isFault(err) {
		t.Errorf("%T: %v, want a format error", err, err)
	}
	if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func wantOpenFault(t testing.TB, g *Group, name, want string) {
	t.Helper()
	v, err := g.Open(name, OpenOptions{})
	if v != nil {
		t.Errorf("%s: a volume", name)
	}
	wantFault(t, err, want)
}

func asRefused(err error) *RefusedError {
	var re *RefusedError
	if errors.As(err, &re) {
		return re
	}
	return nil
}
