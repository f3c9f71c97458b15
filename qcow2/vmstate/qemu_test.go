package vmstate

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cbt/internal/testqemu"
	"cbt/sparse"
)

// A real QEMU resumes from the canonical stream, however the state was saved: with the RAM of the
// state, and with a program that keeps counting.
func TestQEMUResumes(t *testing.T) {
	plain := unpacked(t, "plain.state")
	for name, c := range map[string]struct{ state, ram []byte }{
		"plain":      {plain, unpacked(t, "plain.state.ram")},
		"background": {unpacked(t, "background.state"), unpacked(t, "background.state.ram")},
		"xbzrle":     {unpacked(t, "xbzrle.state"), unpacked(t, "xbzrle.state.ram")},
		"mapped-ram": {mappedRAM(t, open(t, plain, Options{}), nil), unpacked(t, "plain.state.ram")},
		"no footers": {unpacked(t, "bare.state"), unpacked(t, "bare.state.ram")},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, c.state, Options{})
			path := filepath.Join(t.TempDir(), "state")
			if err := os.WriteFile(path, stream(t, s), 0o600); err != nil {
				t.Fatal(err)
			}
			firmware := filepath.Join(t.TempDir(), "firmware")
			if err := os.WriteFile(firmware, content(t, s.Block("pc.bios")), 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"-S", "-M", "pc-i440fx-7.2", "-m", "1", "-bios", firmware, "-incoming", "exec:cat " + path}
			if name == "no footers" {
				args = append(args, "-global", "migration.send-section-footer=off", "-global", "migration.send-configuration=off")
			}
			m := testqemu.Start(t, args...)
			m.Until("query-status", "paused")
			goesOn(t, m, c.ram)
		})
	}
}

// goesOn checks that a machine has the RAM of its state, and keeps counting.
func goesOn(t *testing.T, m *testqemu.Machine, ram []byte) {
	t.Helper()
	got := m.Memory(1 << 20)
	if !bytes.Equal(got[:vgaHole], ram[:vgaHole]) {
		t.Error("the RAM of the machine is not that of the state")
	}
	m.Do("cont", nil)
	time.Sleep(300 * time.Millisecond)
	m.Do("stop", nil)
	if then := m.Memory(1 << 20); bytes.Equal(then[0x20000:0x30000], got[0x20000:0x30000]) {
		t.Error("the machine does not count on")
	}
}

// Every page of a stopped machine is what QEMU's own pmemsave writes.
func TestPmemsave(t *testing.T) {
	fill := fillFile(t, 40<<20)
	for _, c := range []struct {
		machine      string
		capabilities []string
	}{
		{"pc", nil}, {"q35", []string{"compress"}}, {"pc", []string{"background-snapshot"}},
	} {
		t.Run(fmt.Sprint(c.machine, c.capabilities), func(t *testing.T) {
			m := testqemu.Start(t, "-M", c.machine, "-m", fmt.Sprint(filledRAM>>20), "-device", fill)
			time.Sleep(time.Second)
			m.Do("stop", nil)
			want := m.Memory(filledRAM)
			m.Migrate("exec:cat>state", c.capabilities...)
			s := openFile(t, filepath.Join(m.Dir, "state"))
			samePhysical(t, s.Block("pc.ram"), want)
			sameStored(t, s.Block("pc.ram"))
		})
	}
}

// filledRAM is the memory of a machine that has the device of fillFile.
const filledRAM = 64 << 20

// fillFile returns a device that fills memory: a third of its pages is random, a third has one byte
// value, a third is zero.
func fillFile(t *testing.T, size int) (device string) {
	t.Helper()
	fill := make([]byte, size)
	rnd := rand.New(rand.NewPCG(1, 2))
	for at := 0; at < len(fill); at += 4096 {
		switch rnd.IntN(3) {
		case 0:
			for i := range 4096 {
				fill[at+i] = byte(rnd.Uint32())
			}
		case 1:
			fill[at+rnd.IntN(4096)] = 1
		}
	}
	path := filepath.Join(t.TempDir(), "fill")
	if err := os.WriteFile(path, fill, 0o600); err != nil {
		t.Fatal(err)
	}
	return "loader,addr=0x1000000,force-raw=on,file=" + path
}

// openAt opens a state at an offset of a file.
func openAt(t *testing.T, path string, offset int64) *State {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(f, info.Size(), Options{Offset: offset, Temp: temp(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// samePhysical compares every page of the RAM of a PC with physical memory.
func samePhysical(t *testing.T, b *Block, want []byte) {
	t.Helper()
	if b == nil || b.Size() != int64(len(want)) {
		t.Fatalf("the state does not have the machine's %d bytes of RAM", len(want))
	}
	sameMemory(t, content(t, b), want)
}

// sameMemory compares two memories of a PC page by page.
func sameMemory(t *testing.T, got, want []byte) {
	t.Helper()
	differ := 0
	for at := 0; at < len(want); at += 4096 {
		if (at < vgaHole || at >= vgaHoleEnd) && !bytes.Equal(got[at:][:4096], want[at:][:4096]) {
			if differ++; differ <= 10 {
				t.Errorf("page at 0x%x differs", at)
			}
		}
	}
	if differ > 10 {
		t.Errorf("%d pages differ", differ)
	}
}

// sameStored checks that all pages that are not zero are stored, and no others.
func sameStored(t *testing.T, b *Block) {
	t.Helper()
	got, zero := content(t, b), int64(0)
	for at := 0; at < len(got); at += 4096 {
		if sparse.IsZero(got[at:][:4096]) {
			zero++
		}
	}
	if b.Stored() != b.Pages()-zero {
		t.Errorf("%d pages stored, %d of %d are zero", b.Stored(), zero, b.Pages())
	}
}
