package vmstate

import (
	"bytes"
	"slices"
	"testing"

	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

// vgaHole is the part of a PC's RAM that pmemsave does not show.
const vgaHole, vgaHoleEnd = 0xa0000, 0xc0000

// Memory of the firmware's copy is read-only or remapped there.
const shadow, shadowEnd = 0xc0000, 0x100000

// sameRAM compares a state with what QEMU's pmemsave wrote of the stopped machine.
func sameRAM(t *testing.T, s *State, want []byte) {
	t.Helper()
	b := s.Block("pc.ram")
	if b == nil {
		t.Fatal("no block pc.ram")
	}
	got := content(t, b)
	for at := 0; at < len(want); at += 4096 {
		if at >= vgaHole && at < shadowEnd {
			continue
		}
		if !bytes.Equal(got[at:][:4096], want[at:][:4096]) {
			t.Errorf("page at 0x%x differs from pmemsave's", at)
		}
	}
	if n := bytes.Count(want, []byte{0}); n == len(want) {
		t.Error("all of RAM is zero")
	}
}

func TestRealStates(t *testing.T) {
	for _, c := range []struct {
		name, machine string
		described     bool
		devices       int
	}{
		{"plain.state", "pc-i440fx-7.2", true, 20},
		{"q35.state", "pc-q35-7.2", true, 20},
		{"compress.state", "pc-i440fx-7.2", true, 20},
		{"background.state", "pc-i440fx-7.2", true, 20},
		{"bitmap.state", "pc-i440fx-7.2", true, 20},
		{"block.state", "pc-i440fx-7.2", true, 20},
		{"xbzrle.state", "pc-i440fx-7.2", true, 20},
		{"shared.state", "pc-i440fx-7.2", true, 20},
		{"old.state", "", false, 0},
		{"bare.state", "", true, 20},
		{"isapc.state", "isapc", true, 15},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, unpacked(t, c.name), Options{})
			sameRAM(t, s, unpacked(t, c.name+".ram"))
			if s.MachineType != c.machine || s.Described != c.described || len(s.Devices) < c.devices || !c.described && s.Devices != nil {
				t.Errorf("machine %q, described %v, %d devices", s.MachineType, s.Described, len(s.Devices))
			}
			if (s.Complete() == nil) != c.described {
				t.Error(s.Complete())
			}
			for _, b := range s.Blocks {
				sparsetest.View(t, b, content(t, b))
			}
			skeleton := make([]byte, s.Skeleton().Size())
			if _, err := sparse.ReadFull(s.Skeleton(), skeleton, 0); err != nil {
				t.Fatal(err)
			}
			sparsetest.View(t, s.Skeleton(), skeleton)

			// The canonical stream gives the same state, and is its own canonical stream.
			out := stream(t, s)
			again := open(t, out, Options{})
			sameState(t, again, s)
			if !bytes.Equal(stream(t, again), out) {
				t.Error("the canonical stream of a canonical stream is another one")
			}
			// The skeleton and the pages give the same stream.
			bones := open(t, skeleton, Options{})
			var w bytes.Buffer
			if err := bones.WriteStream(&w, func(b *Block) (sparse.View, error) { return s.Block(b.Name), nil }); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(w.Bytes(), out) {
				t.Error("skeleton and pages make another stream")
			}
		})
	}
}

func sameState(t *testing.T, got, want *State) {
	t.Helper()
	if !slices.Equal(got.Devices, want.Devices) {
		t.Errorf("devices %v, want %v", got.Devices, want.Devices)
	}
	if got.MachineType != want.MachineType || len(got.Blocks) != len(want.Blocks) {
		t.Fatalf("machine %q with %d blocks, want %q with %d", got.MachineType, len(got.Blocks), want.MachineType, len(want.Blocks))
	}
	for i, b := range got.Blocks {
		if o := want.Blocks[i]; b.Name != o.Name || b.Size() != o.Size() || !bytes.Equal(content(t, b), content(t, o)) {
			t.Errorf("block %q differs", b.Name)
		}
	}
}

func TestUUIDAndCapabilities(t *testing.T) {
	if s := open(t, unpacked(t, "q35.state"), Options{}); s.UUID != "6a7ad0d4-3b57-4c8f-a3d2-0d8f1f3c1a5b" {
		t.Errorf("UUID %q", s.UUID)
	}
	s := open(t, unpacked(t, "shared.state"), Options{})
	if !slices.Equal(s.Capabilities, []string{"x-ignore-shared"}) {
		t.Errorf("capabilities %q", s.Capabilities)
	}
	for _, b := range s.Blocks {
		if b.Name == "pc.bios" && b.Address != 0xffff0000 {
			t.Errorf("pc.bios at %#x", b.Address)
		}
	}
}

// A state in a larger file, such as a volume, ends where its description ends.
func TestStateWithBytesBehindIt(t *testing.T) {
	b := unpacked(t, "plain.state")
	want := open(t, b, Options{})
	for _, tail := range [][]byte{make([]byte, 100000), bytes.Repeat([]byte("}"), 3000), b[len(b)/2:]} {
		s := open(t, append(slices.Clone(b), tail...), Options{})
		if !s.Described {
			t.Fatal("the description was not found")
		}
		sameState(t, s, want)
		if !bytes.Equal(stream(t, s), stream(t, want)) {
			t.Error("another canonical stream")
		}
	}
}
