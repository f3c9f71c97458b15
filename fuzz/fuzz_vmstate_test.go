package fuzz

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"cbt/internal/sample"
	"cbt/qcow2"
	"cbt/qcow2/vmstate"
	"cbt/sparse"
)

// memory is a temporary file in memory.
type memory struct{ b []byte }

func (m *memory) Close() error { return nil }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.b).ReadAt(p, off)
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if need := off + int64(len(p)); need > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, need-int64(len(m.b)))...)
	}
	return copy(m.b[off:], p), nil
}

func vmstateSample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(sample.Dir(t), "vmstate", name))
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Ext(name) != ".gz" {
		return b
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err == nil {
		b, err = io.ReadAll(z)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// libvirtState puts a save image's header in front of a stream.
func libvirtState(format uint32, stream []byte) []byte {
	text := "<domain><name>n</name><uuid>u</uuid></domain>\x00"
	b := append([]byte("LibvirtQemudSave"), make([]byte, 76)...)
	for i, v := range []uint32{2, uint32(len(text)), 1, format} {
		binary.LittleEndian.PutUint32(b[16+4*i:], v)
	}
	return append(append(b, text...), stream...)
}

// FuzzVMState opens any bytes, and real states with edits of up to eight bytes
// each, as the state of a machine, and uses all of it: without a panic, without
// more memory than the bytes deserve. What opens is written as a stream, which
// must be the same state and its own canonical stream.
func FuzzVMState(f *testing.F) {
	var base [][]byte
	for _, name := range []string{"plain.state.gz", "xbzrle.state.gz", "compress.state.gz", "background.state.gz", "bitmap.state.gz", "block.state.gz", "shared.state.gz", "old.state.gz", "q35.state.gz"} {
		base = append(base, vmstateSample(f, name))
	}
	for i, name := range []string{"plain.state.gz", "plain.state.bz2", "plain.state.xz", "plain.state.lzo", "plain.state.zst"} {
		b := vmstateSample(f, name)
		if i == 0 {
			var err error
			if b, err = os.ReadFile(filepath.Join(sample.Dir(f), "vmstate", name)); err != nil {
				f.Fatal(err)
			}
		}
		base = append(base, libvirtState(uint32(i+1), b))
	}
	for i := range base {
		f.Add(uint8(i+1), []byte{})
		f.Add(uint8(i+1), []byte("\x00\x00\x20\xff\xff\xff\xff\xff\xff\xff\xff"))
		f.Add(uint8(i+1), []byte("\x00\x00\x5b\x01"))
	}
	f.Add(uint8(0), base[0][:4096])
	for name, payload := range map[string]string{
		"spapr/htab":              "\x00\x00\x00\x00\x00\x00\x00\x07\x00\x01\x00\x02page table entry\x00\x00\x00\x00\x00\x00\x00\x00",
		"s390-storage_attributes": "\x00\x00\x00\x00\x00\x00\x10\x02\x00\x00\x00\x00\x00\x00\x00\x01~\x00\x00\x00\x00\x00\x00\x00\x01",
		"vfio":                    "\xff\xff\xff\xff\xef\x10\x00\x04\x00\x00\x00\x00\x00\x00\x00\x02ab\xff\xff\xff\xff\xef\x10\x00\x01",
	} {
		f.Add(uint8(0), footedState(name, payload))
	}
	f.Add(uint8(0), libvirtState(6, base[0][:200]))
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		if kind > 0 {
			whole := bytes.Clone(base[(int(kind)-1)%len(base)])
			for edits := b; len(edits) > 3; {
				at := (int(edits[0])<<16 | int(edits[1])<<8 | int(edits[2])) % len(whole)
				n := copy(whole[at:], edits[3:min(len(edits), 11)])
				edits = edits[3+n:]
			}
			b = whole
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		useState(t, b)
		runtime.ReadMemStats(&after)
		if used, limit := after.TotalAlloc-before.TotalAlloc, uint64(256<<20+64*len(b)); used > limit {
			t.Errorf("%d bytes allocated for %d", used, len(b))
		}
	})
}

// footedState is a stream with footers, a section that is iterable, and a device
// whose pointers to nothing are described, and to something are not.
func footedState(name, payload string) []byte {
	b := []byte("QEVM\x00\x00\x00\x03\x01\x00\x00\x00\x02\x03ram\x00\x00\x00\x00\x00\x00\x00\x04" +
		"\x00\x00\x00\x00\x00\x00\x10\x04\x01a\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x10~\x00\x00\x00\x02" +
		"\x01\x00\x00\x00\x03" + string(rune(len(name))) + name + "\x00\x00\x00\x00\x00\x00\x00\x01" + payload + "~\x00\x00\x00\x03" +
		"\x03\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x10~\x00\x00\x00\x02" +
		"\x04\x00\x00\x00\x07\x03dev\x00\x00\x00\x00\x00\x00\x00\x010x~\x00\x00\x00\x09y0~\x00\x00\x00\x07\x00\x06")
	text := `{"page_size":4096,"devices":[{"name":"dev","instance_id":0,"version":1,"fields":[{"array_len":4,"type":"struct","struct":{},"size":1}]}]}`
	return append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...)
}

// FuzzCoreFile has any bytes as a core file of a machine.
func FuzzCoreFile(f *testing.F) {
	s, err := vmstate.Open(bytes.NewReader(vmstateSample(f, "plain.state.gz")), int64(len(vmstateSample(f, "plain.state.gz"))), vmstate.Options{})
	if err != nil {
		f.Fatal(err)
	}
	ranges, err := s.RAMRanges("")
	if err != nil {
		f.Fatal(err)
	}
	core, err := s.Core(ranges, nil)
	if err != nil {
		f.Fatal(err)
	}
	head := make([]byte, 1<<10)
	if _, err := sparse.ReadFull(core, head, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(head, core.Size())
	f.Add(head, int64(len(head)))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		size = max(int64(len(b)), size%(1<<30))
		r := io.NewSectionReader(&padded{b}, 0, size)
		d, err := vmstate.OpenDump(r, size)
		if err != nil {
			return
		}
		for _, p := range d.Pieces(sparse.Plain(r, size)) {
			n := int64(0)
			for e, err := range p.Extents(0, p.Size()) {
				if err != nil || e.Off != n || e.Len <= 0 {
					t.Fatalf("%v, %v behind %d", e, err, n)
				}
				n = e.End()
			}
			if _, err := sparse.ReadFull(p, make([]byte, min(p.Size(), 4096)), 0); err != nil || n != p.Size() {
				t.Fatalf("%d of %d bytes have extents: %v", n, p.Size(), err)
			}
		}
	})
}

// padded is bytes with zeros behind them.
type padded struct{ b []byte }

func (p *padded) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if off < int64(len(p.b)) {
		copy(b, p.b[off:])
	}
	return len(b), nil
}

// FuzzVMDescription has any text as the description of one device that holds
// any bytes.
func FuzzVMDescription(f *testing.F) {
	for _, fields := range []string{
		`"fields":[{"name":"a","type":"uint32","size":4}]`,
		`"fields":[{"type":"struct","array_len":2,"struct":{"vmsd_name":"s","version":1,"fields":[{"size":2}]}}],"subsections":[{"vmsd_name":"x","version":1,"fields":[]}]`,
		`"fields":[{"type":"struct","array_len":99999999,"struct":{"fields":[{"type":"struct","array_len":99999999,"struct":{}}]}}]`,
	} {
		f.Add([]byte("abcd\x05\x01x\x00\x00\x00\x01"), []byte(`{"page_size":4096,"devices":[{"name":"dev","instance_id":0,"version":1,`+fields+`}]}`))
	}
	f.Fuzz(func(t *testing.T, payload, text []byte) {
		b := []byte("QEVM\x00\x00\x00\x03\x01\x00\x00\x00\x02\x03ram\x00\x00\x00\x00\x00\x00\x00\x04" +
			"\x00\x00\x00\x00\x00\x00\x10\x04\x01a\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x10" +
			"\x03\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x10\x04\x00\x00\x00\x07\x03dev\x00\x00\x00\x00\x00\x00\x00\x01")
		b = append(append(b, payload...), 0, 6)
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...)
		useState(t, b)
	})
}

// FuzzLibvirtSave has any bytes behind the magic of a save image, its domain
// among them.
func FuzzLibvirtSave(f *testing.F) {
	plain := vmstateSample(f, "plain.state.gz")
	good := libvirtState(0, plain)
	f.Add(good[16:92], good[92:len(good)-len(plain)])
	big := make([]byte, 76)
	for i, v := range []uint32{2, 46, 1, 6, 40} {
		binary.BigEndian.PutUint32(big[4*i:], v)
	}
	f.Add(big, good[92:len(good)-len(plain)])
	f.Fuzz(func(t *testing.T, header, text []byte) {
		b := append([]byte("LibvirtQemudSave"), header...)
		b = append(append(b, text...), plain...)
		useState(t, b)
	})
}

func useState(t *testing.T, b []byte) {
	const maxRAM = 64 << 20
	opt := vmstate.Options{MaxRAM: maxRAM, Temp: func() (vmstate.TempFile, error) { return &memory{}, nil }}
	s, err := vmstate.Open(bytes.NewReader(b), int64(len(b)), opt)
	if err != nil {
		if s != nil {
			t.Error("a state and an error")
		}
		return
	}
	defer s.Close()
	var out bytes.Buffer
	if err := s.WriteStream(&out, nil); err != nil {
		t.Fatalf("what opens cannot be written: %v", err)
	}
	again, err := vmstate.Open(bytes.NewReader(out.Bytes()), int64(out.Len()), opt)
	if err != nil {
		t.Fatalf("the canonical stream does not open: %v", err)
	}
	defer again.Close()
	if again.MachineType != s.MachineType || len(again.Blocks) != len(s.Blocks) || len(again.Devices) != len(s.Devices) || again.Described != s.Described {
		t.Fatalf("the canonical stream is another state")
	}
	for i, x := range s.Blocks {
		y := again.Blocks[i]
		if x.Name != y.Name || x.Size() != y.Size() || x.Shared != y.Shared {
			t.Fatalf("block %q has become %q", x.Name, y.Name)
		}
		if x.Shared {
			continue
		}
		for _, err := range sparse.Compare(x, y, 0, x.Size()) {
			if err != nil {
				t.Fatal(err)
			}
			t.Fatalf("block %q differs", x.Name)
		}
	}
	var twice bytes.Buffer
	if err := again.WriteStream(&twice, nil); err != nil || !bytes.Equal(twice.Bytes(), out.Bytes()) {
		t.Fatalf("the canonical stream of a canonical stream is another one: %v", err)
	}
	useMapped(t, s, out.Bytes(), opt)
	useCore(t, s)
}

// useMapped writes the state as mapped-ram, if that is possible, and reads that.
func useMapped(t *testing.T, s *vmstate.State, stream []byte, opt vmstate.Options) {
	file := &memory{}
	if s.WriteMapped(file, nil) != nil {
		return // no configuration, or x-ignore-shared
	}
	again, err := vmstate.Open(file, int64(len(file.b)), opt)
	if err != nil {
		t.Fatalf("the state as mapped-ram does not open: %v", err)
	}
	defer again.Close()
	var out bytes.Buffer
	if err := again.WriteStream(&out, nil); err != nil || !bytes.Equal(out.Bytes(), stream) {
		t.Fatalf("the state as mapped-ram has another canonical stream: %v", err)
	}
}

// useCore makes a core file, where it is known where RAM is.
func useCore(t *testing.T, s *vmstate.State) {
	for _, machine := range []string{"", "pc", "q35"} {
		ranges, err := s.RAMRanges(machine)
		if err != nil {
			continue
		}
		core, err := s.Core(ranges, nil)
		if err != nil {
			t.Fatal(err)
		}
		if (core.CPUs == 0) != (core.NoCPUs != nil) {
			t.Fatalf("%d processors, %v", core.CPUs, core.NoCPUs)
		}
		at := int64(0)
		for e, err := range core.Extents(0, core.Size()) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Off != at {
				t.Fatalf("extent %v behind %d", e, at)
			}
			at = e.End()
			b := make([]byte, min(e.Len, 4096))
			if _, err := sparse.ReadFull(core, b, e.End()-int64(len(b))); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The state of a machine in an internal snapshot is read out of the qcow2
// image, and is what QEMU said the machine's RAM was.
func TestVMStateOfSnapshots(t *testing.T) {
	b := vmstateSample(t, "snapshots.qcow2.gz")
	img, err := qcow2.Open(bytes.NewReader(b), int64(len(b)), qcow2.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r, n, err := img.Active().VMState(); r != nil || n != 0 || err != nil {
		t.Errorf("the active state has a machine state of %d bytes, %v", n, err)
	}
	for i, snap := range img.Snapshots() {
		v, err := img.Snapshot(i)
		if err != nil {
			t.Fatal(err)
		}
		r, size, err := v.VMState()
		if err != nil {
			t.Fatal(err)
		}
		s, err := vmstate.Open(r, size, vmstate.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !s.Described || s.MachineType != "pc-i440fx-7.2" {
			t.Errorf("%s: %+v", snap.Name, s)
		}
		ram, want := s.Block("pc.ram"), vmstateSample(t, "snapshots."+snap.Name+".ram.gz")
		got := make([]byte, 0xa0000) // then VGA's memory hides it
		if _, err := ram.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want[:len(got)]) {
			t.Errorf("%s: RAM differs from pmemsave's", snap.Name)
		}
	}
	if len(img.Snapshots()) != 2 {
		t.Error("not two snapshots")
	}
}

// A size that the snapshot's tables cannot hold is refused when it is asked for.
func TestVMStateTooLarge(t *testing.T) {
	b := vmstateSample(t, "snapshots.qcow2.gz")
	table := binary.BigEndian.Uint64(b[64:])
	for _, size := range []uint64{1 << 63, 1<<64 - 1, 1 << 40} {
		binary.BigEndian.PutUint64(b[table+40:], size)
		img, err := qcow2.Open(bytes.NewReader(b), int64(len(b)), qcow2.Options{})
		if err != nil {
			t.Fatal(err)
		}
		v, err := img.Snapshot(0)
		if err != nil {
			t.Fatal(err)
		}
		var fe *sparse.FormatError
		if _, _, err := v.VMState(); !errors.As(err, &fe) {
			t.Errorf("%#x: %v", size, err)
		}
	}
}
