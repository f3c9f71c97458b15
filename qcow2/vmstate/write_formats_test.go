package vmstate

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/sparse"
)

// TestWriteMapped writes states as mapped-ram and reads them again.
func TestWriteMapped(t *testing.T) {
	for _, name := range []string{"plain.state", "q35.state", "xbzrle.state", "background.state"} {
		t.Run(name, func(t *testing.T) {
			want := open(t, unpacked(t, name), Options{})
			f, err := os.Create(filepath.Join(t.TempDir(), "mapped"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := want.WriteMapped(f, nil); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			s := open(t, b, Options{})
			sameState(t, s, want)
			if s.Container != "mapped-ram" || !bytes.Equal(stream(t, s), stream(t, want)) {
				t.Errorf("%s, or another canonical stream", s.Container)
			}
			for i, x := range s.Blocks {
				if x.Stored() != want.Blocks[i].Stored() {
					t.Errorf("%s: %d pages stored, want %d", x.Name, x.Stored(), want.Blocks[i].Stored())
				}
			}
		})
	}
	for name, why := range map[string]string{"shared.state": "x-ignore-shared", "bare.state": "configuration"} {
		s := open(t, unpacked(t, name), Options{})
		if err := s.WriteMapped(nil, nil); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWriteLibvirt writes save images of a state that did not come from one and of one that did,
// and reads both again. It also checks what is kept of them besides RAM.
func TestWriteLibvirt(t *testing.T) {
	plain := open(t, unpacked(t, "plain.state"), Options{})
	l, err := NewLibvirt(domain, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []*State{plain, open(t, libvirtImage(binary.LittleEndian, "LibvirtQemudSave", 0, unpacked(t, "plain.state")), Options{})} {
		if from.Libvirt != nil {
			l = from.Libvirt
		}
		var b bytes.Buffer
		if err := from.WriteLibvirt(&b, l, nil); err != nil {
			t.Fatal(err)
		}
		s := open(t, b.Bytes(), Options{})
		sameState(t, s, plain)
		if s.Container != "libvirt raw" || s.Libvirt.XML != l.XML || s.Libvirt.Cookie != l.Cookie || s.Libvirt.WasRunning != l.WasRunning || s.Libvirt.Name != "vm&1" {
			t.Errorf("%s %+v, want %+v", s.Container, s.Libvirt, l)
		}
		if !bytes.Equal(stream(t, s), stream(t, plain)) {
			t.Error("another canonical stream")
		}
		record, err := io.ReadAll(io.NewSectionReader(from.Record(), 0, from.Record().Size()))
		if err != nil {
			t.Fatal(err)
		}
		kept := open(t, record, Options{})
		if (kept.Libvirt == nil) != (from.Libvirt == nil) {
			t.Errorf("kept %+v of %+v", kept.Libvirt, from.Libvirt)
		}
		b.Reset()
		if err := kept.WriteStream(&b, func(x *Block) (sparse.View, error) { return plain.Block(x.Name), nil }); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), stream(t, plain)) {
			t.Error("the record and the RAM give another canonical stream")
		}
	}
	for _, bad := range []string{"", "<network/>", domain + "\x00", "<domain><name>x"} {
		if _, err := NewLibvirt(bad, false); err == nil {
			t.Errorf("%q is a domain", bad)
		}
	}
}
