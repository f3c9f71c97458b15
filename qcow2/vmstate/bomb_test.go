package vmstate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/testtool"
	"cbt/sparse"
)

type packer struct {
	format  int // libvirt's number
	command string
	ending  string
}

// packers pack a file and leave the original.
var packers = []packer{
	{1, "gzip -9 -k", ".gz"}, {2, "bzip2 -k", ".bz2"}, {3, "xz -k", ".xz"}, {4, "lzop -9", ".lzo"}, {5, "zstd -q", ".zst"},
}

func (p packer) name() string { return libvirtFormats[p.format] }

// bomb returns a save image whose stream begins with head and goes on with again, n times, packed
// by p.
func bomb(t *testing.T, p packer, head, again []byte, n int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stream")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	many := bytes.Repeat(again, 1+1<<20/len(again))
	f.Write(head)
	for done := 0; done < n; done += len(many) {
		f.Write(many)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	command := strings.Fields(p.command)
	testtool.Run(t, command[0], append(command[1:], path)...)
	packed, err := os.ReadFile(path + p.ending)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	return libvirtImage(binary.LittleEndian, "LibvirtQemudSave", p.format, packed)
}

// TestBombs opens save images that unpack to far more than they can hold.
func TestBombs(t *testing.T) {
	defer func(n int64) { unpackSlack = n }(unpackSlack)
	unpackSlack = 4 << 20
	stream := func(ram uint64) []byte {
		var h hand
		h.header()
		h.ram(ram)
		return h
	}
	record := func() []byte {
		var h hand
		h.u64(ramPage)
		h.counted("a")
		return append(h, bytes.Repeat([]byte{1}, 4096)...)
	}()
	const MiB = 1 << 20
	for _, p := range packers {
		for name, c := range map[string]struct {
			head, again []byte
			size        int
			most        int64
			want        string
		}{
			"no state":     {nil, make([]byte, 4096), 2 * MiB, 0, "no migration stream"},
			"other header": {[]byte("QEVM\x00\x00\x00\x04"), make([]byte, 4096), 2 * MiB, 0, "only version 3"},
			"no RAM":       {stream(4096)[:17], make([]byte, 4096), 6 * MiB, 0, "no RAM"},
			// Formats that cannot pack this tightly are limited by the RAM that the stream gives.
			"little RAM": {stream(MiB), make([]byte, 4096), 28 * MiB, 22 * MiB, ""},
			"much RAM":   {append(append(stream(1<<40), vmPart, 0, 0, 0, 2), record...), record, 64 * MiB, 60 * MiB, "packed"},
		} {
			if name == "much RAM" && (maxRatio[p.name()] == 0 || testing.Short()) {
				continue
			}
			t.Run(p.ending+" "+name, func(t *testing.T) {
				b := bomb(t, p, c.head, c.again, c.size)
				var made []*os.File
				makeTemp := temp(t)
				opt := Options{Temp: func() (TempFile, error) {
					f, err := makeTemp()
					made = append(made, f.(*os.File))
					return f, err
				}}
				_, err := Open(bytes.NewReader(b), int64(len(b)), opt)
				var fe *sparse.FormatError
				if !errors.As(err, &fe) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%d bytes packed: %v", len(b), err)
				}
				total := int64(0)
				for _, f := range made {
					if info, err := os.Stat(f.Name()); err == nil {
						total += info.Size()
					}
				}
				if total > c.most {
					t.Errorf("%d bytes packed: %d bytes in temporary files, %d at most", len(b), total, c.most)
				}
			})
		}
	}
}

// TestHeadOnly reads only the head of save images; nothing else is available then.
func TestHeadOnly(t *testing.T) {
	plain := unpacked(t, "plain.state")
	want := open(t, plain, Options{})
	for format, name := range map[int]string{1: "gz", 2: "bz2", 3: "xz", 4: "lzo", 5: "zst"} {
		b := libvirtImage(binary.LittleEndian, "LibvirtQemudSave", format, file(t, "plain.state."+name))
		s, err := Open(bytes.NewReader(b), int64(len(b)), Options{HeadOnly: true}) // without a temporary file
		if err != nil {
			t.Fatal(err)
		}
		if !s.HeadOnly || s.MachineType != want.MachineType || s.Libvirt.Name != "vm&1" || len(s.Blocks) != len(want.Blocks) || s.Complete() == nil {
			t.Errorf("%s: %+v", name, s)
		}
		for i, x := range s.Blocks {
			if x.Name != want.Blocks[i].Name || x.Size() != want.Blocks[i].Size() {
				t.Errorf("%s: block %d is %s of %d bytes", name, i, x.Name, x.Size())
			}
			if _, err := x.ReadAt(make([]byte, 1), 0); err == nil {
				t.Errorf("%s: block %s was read", name, x.Name)
			}
			for _, err := range x.Extents(0, x.Size()) {
				if err == nil {
					t.Errorf("%s: block %s has extents", name, x.Name)
				}
			}
		}
		var out bytes.Buffer
		if err := s.WriteStream(&out, nil); err == nil {
			t.Errorf("%s: a stream was written", name)
		}
	}
}

// TestSkimmed opens states whose pages are packed one by one, without unpacking any: everything
// else about them is known, and no page can be read.
func TestSkimmed(t *testing.T) {
	for _, name := range []string{"compress.state", "xbzrle.state"} {
		b := unpacked(t, name)
		want := open(t, b, Options{})
		s, err := Open(bytes.NewReader(b), int64(len(b)), Options{HeadOnly: true}) // without a temporary file
		if err != nil {
			t.Fatal(err)
		}
		if s.HeadOnly || !s.Described || len(s.Devices) != len(want.Devices) {
			t.Errorf("%s: %d devices", name, len(s.Devices))
		}
		for i, x := range s.Blocks {
			if x.Stored() != want.Blocks[i].Stored() {
				t.Errorf("%s: %d pages of %s, want %d", name, x.Stored(), x.Name, want.Blocks[i].Stored())
			}
			if _, err := x.ReadAt(make([]byte, 1), 0); err == nil {
				t.Errorf("%s: block %s was read", name, x.Name)
			}
		}
	}
}
