package vmstate

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cbt/internal/testqemu"
	"cbt/internal/testvm"
	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

// TestCore compares core files with those of QEMU's dump-guest-memory, of
// machines with RAM on both sides of the hole below 4 GiB.
func TestCore(t *testing.T) {
	fill := make([]byte, 3<<20)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range fill {
		fill[i] = byte(rnd.Uint32())
	}
	path := filepath.Join(t.TempDir(), "fill")
	if err := os.WriteFile(path, fill, 0o600); err != nil {
		t.Fatal(err)
	}
	kernel, initrd := testvm.Small(t, "mount -t devtmpfs dev /dev; echo; echo ready:; while :; do sleep 1; done\n")
	const linux = "-smp 2 -append console=ttyS0"
	for _, c := range []struct {
		machine string
		size    int // MiB
		args    string
		at      []uint64 // where the RAM is filled
		above   uint64   // RAM above 4 GiB
	}{
		{"pc", 64, "-smp 2", []uint64{0x1000000}, 0},
		{"pc", 4352, "", []uint64{0xbf000000, 4 << 30}, 1280 << 20},
		{"q35", 2880, "-smp 3", []uint64{0x7f000000, 4 << 30}, 832 << 20},
		{"pc,max-ram-below-4g=1G", 1280, "", []uint64{0x3f000000, 4 << 30}, 256 << 20},
		{"pc", 128, linux, nil, 0},
		{"q35,memory-backend=foo", 32, "-object memory-backend-ram,id=foo,size=32M", []uint64{0x1000000}, 0},
	} {
		t.Run(c.machine, func(t *testing.T) {
			args := append([]string{"-M", c.machine, "-m", fmt.Sprint(c.size)}, strings.Fields(c.args)...)
			for _, at := range c.at {
				args = append(args, "-device", fmt.Sprintf("loader,addr=%d,force-raw=on,file=%s", at, path))
			}
			if c.args == linux {
				args = append(args, "-kernel", kernel, "-initrd", initrd)
			}
			m := testqemu.Start(t, append(args, testqemu.Serial()...)...)
			if c.args == linux {
				m.Hear("ready:", time.Minute)
			} else {
				time.Sleep(time.Second)
			}
			m.Do("stop", nil)
			dump := map[string]any{"paging": false, "protocol": "file:dump"}
			if c.above > 0 { // only a part: the two ends of the hole
				dump["begin"], dump["length"] = c.at[0]-16<<20, 4<<30+32<<20-(c.at[0]-16<<20)
			}
			m.Do("dump-guest-memory", dump)
			m.Migrate("exec:cat>state")
			s := openFile(t, filepath.Join(m.Dir, "state"))
			ranges, err := s.RAMRanges("")
			if err != nil {
				t.Fatal(err)
			}
			if last := ranges[len(ranges)-1]; c.above > 0 && (last.Addr != 4<<30 || uint64(last.Len) != c.above) {
				t.Errorf("above 4 GiB: %+v", last)
			}
			core, err := s.Core(ranges, nil)
			if err != nil || core.NoCPUs != nil {
				t.Fatal(err, core.NoCPUs)
			}
			if n, all := sameCore(t, core, filepath.Join(m.Dir, "dump")); n != all && c.above == 0 || n < 48<<20 && c.above > 0 {
				t.Errorf("%d bytes are in both, of %d", n, all)
			}
			memory, err := s.Flat(ranges, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range c.at {
				got := make([]byte, len(fill))
				if _, err := sparse.ReadFull(memory, got, int64(at)); err != nil || !bytes.Equal(got, fill) {
					t.Errorf("physical memory at 0x%x is not what was put there: %v", at, err)
				}
			}
		})
	}
}

func openFile(t *testing.T, path string) *State {
	t.Helper()
	return openAt(t, path, 0)
}

// sameCore compares notes and memory with a dump from QEMU. It returns how many bytes of memory are
// in both, and how many in core.
func sameCore(t *testing.T, core *Core, dump string) (compared, total uint64) {
	t.Helper()
	f, err := os.Open(dump)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, err := elf.NewFile(f)
	if err != nil {
		t.Fatal(err)
	}
	got, err := elf.NewFile(core)
	if err != nil {
		t.Fatal(err)
	}
	if got.Type != want.Type || got.Machine != want.Machine || got.Class != want.Class || got.Data != want.Data {
		t.Errorf("%+v, want %+v", got.FileHeader, want.FileHeader)
	}
	sameAddresses(t, got)
	sameAddresses(t, want)
	for _, p := range want.Progs {
		if p.Type == elf.PT_NOTE {
			a, _ := io.ReadAll(got.Progs[0].Open())
			b, _ := io.ReadAll(p.Open())
			if !bytes.Equal(a, b) {
				t.Errorf("%d bytes of notes differ from QEMU's %d", len(a), len(b))
			}
			continue
		}
		for _, q := range got.Progs {
			lo, hi := max(p.Paddr, q.Paddr), min(p.Paddr+p.Filesz, q.Paddr+q.Filesz)
			if q.Type != elf.PT_LOAD || lo >= hi {
				continue
			}
			compared += hi - lo
			a, b := make([]byte, 1<<20), make([]byte, 1<<20)
			for at := lo; at < hi; at += 1 << 20 {
				n := min(1<<20, hi-at)
				if _, err := q.ReadAt(a[:n], int64(at-q.Paddr)); err != nil && err != io.EOF {
					t.Fatal(err)
				}
				if _, err := p.ReadAt(b[:n], int64(at-p.Paddr)); err != nil && err != io.EOF {
					t.Fatal(err)
				}
				if !bytes.Equal(a[:n], b[:n]) {
					t.Errorf("memory at 0x%x differs", at)
				}
			}
		}
	}
	for _, q := range got.Progs[1:] {
		total += q.Filesz
	}
	return compared, total
}

// sameAddresses checks that each segment has its physical address as its virtual one: gdb reads by
// virtual addresses, and takes the first segment that fits.
func sameAddresses(t *testing.T, f *elf.File) {
	t.Helper()
	end := uint64(0)
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if p.Vaddr != p.Paddr || p.Vaddr < end {
			t.Errorf("a segment at the virtual address 0x%x, at 0x%x in physical memory, after one that ends at 0x%x", p.Vaddr, p.Paddr, end)
		}
		end = p.Vaddr + p.Memsz
	}
}

// TestCoreOfSamples reads core files at random offsets, also those of states that contain less.
func TestCoreOfSamples(t *testing.T) {
	for _, c := range []struct{ name, why, noCPU string }{
		{"plain.state", "", ""},
		{"q35.state", "", ""},
		{"isapc.state", "", ""},
		{"bare.state", "does not name its machine type", ""},
		{"shared.state", "", ""},
		{"old.state", "does not name its machine type", ErrNoCPU.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, unpacked(t, c.name), Options{})
			ranges, err := s.RAMRanges("")
			if c.why != "" {
				if err == nil || !strings.Contains(err.Error(), c.why) {
					t.Fatal(err)
				}
				if ranges, err = s.RAMRanges("pc-i440fx-7.2"); err != nil {
					t.Fatal(err)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			core, err := s.Core(ranges, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.noCPU != "" && (core.CPUs != 0 || core.NoCPUs == nil || core.NoCPUs.Error() != c.noCPU) || c.noCPU == "" && core.CPUs != 1 {
				t.Errorf("%d processors, %v", core.CPUs, core.NoCPUs)
			}
			f, err := elf.NewFile(core)
			if err != nil {
				t.Fatal(err)
			}
			sameAddresses(t, f)
			b := make([]byte, core.Size())
			if _, err := sparse.ReadFull(core, b, 0); err != nil {
				t.Fatal(err)
			}
			sparsetest.View(t, core, b)
			flat, err := s.Flat(ranges[:1], nil)
			if err != nil {
				t.Fatal(err)
			}
			b = make([]byte, flat.Size())
			if _, err := sparse.ReadFull(flat, b, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, content(t, ranges[0].Block)[:len(b)]) {
				t.Error("low memory differs")
			}
		})
	}
}
