package vmstate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

const domain = `<domain type='kvm'>
  <name>vm&amp;1</name>
  <uuid>8f8a2a4e-6a0f-4b6e-9d0a-0d6d1f3c1a5b</uuid>
  <metadata><name>not this</name></metadata>
</domain>
`

// libvirtImage returns a save image in the layout of virQEMUSaveHeader; libvirt itself did not
// write it.
func libvirtImage(order binary.ByteOrder, magic string, format int, stream []byte) []byte {
	cookie := "<cookie><cpu/></cookie>"
	data := make([]byte, len(domain)+1+len(cookie)+1+1000)
	copy(data, domain)
	copy(data[len(domain)+1:], cookie)
	b := make([]byte, libvirtHeaderSize)
	copy(b, magic)
	for i, v := range []int{2, len(data), 1, format, len(domain) + 1} {
		order.PutUint32(b[16+4*i:], uint32(v))
	}
	return slices.Concat(b, data, stream)
}

func TestLibvirt(t *testing.T) {
	plain := unpacked(t, "plain.state")
	want := open(t, plain, Options{})
	for _, c := range []struct {
		name   string
		format int
		stream []byte
		order  binary.ByteOrder
	}{
		{"raw", 0, plain, binary.LittleEndian},
		{"raw", 0, plain, binary.BigEndian},
		{"gzip", 1, file(t, "plain.state.gz"), binary.LittleEndian},
		{"bzip2", 2, file(t, "plain.state.bz2"), binary.LittleEndian},
		{"xz", 3, file(t, "plain.state.xz"), binary.LittleEndian},
		{"lzop", 4, file(t, "plain.state.lzo"), binary.LittleEndian},
		{"lzop", 4, file(t, "plain.state-9.lzo"), binary.LittleEndian},
		{"zstd", 5, file(t, "plain.state.zst"), binary.LittleEndian},
	} {
		t.Run(fmt.Sprintf("%s %v", c.name, c.order), func(t *testing.T) {
			b := libvirtImage(c.order, "LibvirtQemudSave", c.format, c.stream)
			s := open(t, b, Options{})
			sameState(t, s, want)
			if !bytes.Equal(stream(t, s), stream(t, want)) {
				t.Error("another canonical stream")
			}
			l := s.Libvirt
			if s.Container != "libvirt "+c.name || l.Format != c.name || l.Name != "vm&1" || l.UUID != "8f8a2a4e-6a0f-4b6e-9d0a-0d6d1f3c1a5b" ||
				!l.WasRunning || l.XML != domain || l.Cookie != "<cookie><cpu/></cookie>" {
				t.Errorf("%q %+v", s.Container, l)
			}
			if c.format == 0 {
				return
			}
			if _, err := Open(bytes.NewReader(b), int64(len(b)), Options{}); err == nil || !strings.Contains(err.Error(), "temporary file") {
				t.Errorf("without a temporary file: %v", err)
			}
			// Packed data that are cut never give a state.
			whole := len(b) - len(c.stream)
			for n := whole; n < len(b); n += 1 + len(c.stream)/40 {
				var fe *sparse.FormatError
				if _, err := Open(bytes.NewReader(b[:n]), int64(n), Options{Temp: temp(t)}); !errors.As(err, &fe) {
					t.Errorf("cut at %d of %d: %v", n-whole, len(c.stream), err)
				}
			}
		})
	}
}

func TestLibvirtRefused(t *testing.T) {
	plain := unpacked(t, "plain.state")
	for want, b := range map[string][]byte{
		"incomplete": libvirtImage(binary.LittleEndian, "LibvirtQemudPart", 0, plain),
		"neither":    libvirtImage(binary.LittleEndian, "LibvirtQemudXYZW", 0, plain),
		"unknown":    libvirtImage(binary.LittleEndian, "LibvirtQemudSave", 7, plain),
	} {
		if _, err := Open(bytes.NewReader(b), int64(len(b)), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	le := binary.LittleEndian
	for _, c := range []struct {
		field string
		at    int
		value uint32
	}{
		{"version", 16, 0}, {"version", 16, 1 << 30}, {"data_len", 20, 0xffffffff}, {"cookieOffset", 32, 0xfffffff0}, {"domain", 20, 10},
	} {
		b := libvirtImage(le, "LibvirtQemudSave", 0, plain)
		le.PutUint32(b[c.at:], c.value)
		var fe *sparse.FormatError
		if _, err := Open(bytes.NewReader(b), int64(len(b)), Options{}); !errors.As(err, &fe) || !strings.Contains(err.Error(), c.field) && c.field != "domain" {
			t.Errorf("%s %#x: %v", c.field, c.value, err)
		}
	}
	for _, x := range []string{"<x/>", "<domain><name>", strings.Repeat("<domain>", 200), "\xff"} {
		b := libvirtImage(le, "LibvirtQemudSave", 0, plain)
		copy(b[libvirtHeaderSize:], x+"\x00")
		var fe *sparse.FormatError
		if _, err := Open(bytes.NewReader(b), int64(len(b)), Options{}); !errors.As(err, &fe) {
			t.Errorf("%q: %v", x, err)
		}
	}
}

// mappedRAM rewrites a stream as mapped-ram at an offset of a file, with the layout of QEMU 10. The
// QEMU that made the other states cannot write it.
func mappedRAM(t testing.TB, s *State, front []byte) []byte {
	be, le := binary.BigEndian, binary.LittleEndian
	out := append(slices.Clone(front), s.rest.prefix...)
	sub := "configuration/capabilities"
	out = append(append(out, vmSubsection, byte(len(sub))), sub...)
	out = be.AppendUint32(be.AppendUint32(out, 1), 1)
	out = append(out, "\x0amapped-ram"...)
	out = append(be.AppendUint32(append(out, vmStart), s.rest.ramID), "\x03ram"...)
	out = be.AppendUint32(be.AppendUint32(out, 0), ramVersion)
	total := int64(0)
	for _, b := range s.Blocks {
		total += b.Size()
	}
	out = be.AppendUint64(out, uint64(total)|ramMemSize)
	for _, b := range s.Blocks {
		out = append(append(out, byte(len(b.Name))), b.Name...)
		out = be.AppendUint64(out, uint64(b.Size()))
		bitmap := make([]byte, (b.Pages()+63)/64*8)
		p := content(t, b)
		at := (len(out) + mappedHeaderSize + len(bitmap) + 1<<20 - 1) &^ (1<<20 - 1)
		for i := int64(0); i < b.Pages(); i++ {
			page := p[i*4096:][:4096]
			if sparse.IsZero(page) {
				copy(page, "stale")
			} else {
				le.PutUint64(bitmap[i/64*8:], le.Uint64(bitmap[i/64*8:])|1<<(i%64))
			}
		}
		out = be.AppendUint32(out, mappedVersion)
		out = be.AppendUint64(out, 4096)
		out = be.AppendUint64(out, uint64(len(out)+16))
		out = be.AppendUint64(out, uint64(at))
		out = append(out, bitmap...)
		out = append(append(out, make([]byte, at-len(out))...), p...)
	}
	out = s.sectionEnd(out)
	skeleton, at := s.canonical(nil)
	tail := make([]byte, skeleton.size-at)
	if _, err := sparse.ReadFull(skeleton, tail, at); err != nil {
		t.Fatal(err)
	}
	return append(out, tail...)
}

func TestMappedRAM(t *testing.T) {
	want := open(t, unpacked(t, "plain.state"), Options{})
	for _, front := range [][]byte{nil, make([]byte, 12345)} {
		b := mappedRAM(t, want, front)
		s := open(t, b, Options{Offset: int64(len(front))})
		sameState(t, s, want)
		if s.Container != "mapped-ram" || !bytes.Equal(stream(t, s), stream(t, want)) {
			t.Errorf("%s, or another canonical stream", s.Container)
		}
		for i, x := range s.Blocks {
			if x.Stored() != want.Blocks[i].Stored() {
				t.Errorf("%s: %d pages stored, want %d", x.Name, x.Stored(), want.Blocks[i].Stored())
			}
			sparsetest.View(t, x, content(t, x))
		}
	}
	header := libvirtImage(binary.LittleEndian, "LibvirtQemudSave", 6, nil)
	s := open(t, mappedRAM(t, want, header), Options{})
	sameState(t, s, want)
	if s.Container != "libvirt sparse" {
		t.Error(s.Container)
	}
}

func TestMappedRAMHostile(t *testing.T) {
	state := open(t, unpacked(t, "plain.state"), Options{})
	good := mappedRAM(t, state, nil)
	at := bytes.Index(good, []byte("\x06pc.ram")) + 7 + 8
	for _, c := range []struct {
		at    int
		value uint64
	}{
		{at + 4, 1 << 20}, {at + 4, 0}, // page size
		{at + 12, 0}, {at + 12, 1 << 63}, {at + 12, 1<<64 - 8}, {at + 12, uint64(len(good))}, {at + 12, uint64(at)}, // bitmap
		{at + 20, 0}, {at + 20, 1 << 63}, {at + 20, 1<<64 - 1}, {at + 20, uint64(len(good))}, {at + 20, uint64(at + 28)}, // pages
		{at - 8, 1 << 63}, {at - 8, 0}, {at - 8, 4097}, // length
	} {
		b := slices.Clone(good)
		binary.BigEndian.PutUint64(b[c.at:], c.value)
		var fe *sparse.FormatError
		if _, err := Open(bytes.NewReader(b), int64(len(b)), Options{}); !errors.As(err, &fe) {
			t.Errorf("%#x at %d: %v", c.value, c.at-at, err)
		}
	}
	endless := bytes.Replace(good, state.sectionEnd(state.ramHeader(vmEnd)), nil, 1)
	if _, err := Open(bytes.NewReader(endless), int64(len(endless)), Options{}); err == nil || !strings.Contains(err.Error(), "without an end of RAM") {
		t.Errorf("mapped-ram without an end of RAM: %v", err)
	}
}
