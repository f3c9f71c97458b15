package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"cbt/internal/testtool"
	"cbt/sparse"
)

// cutImages returns an image whose active L1 table, and one whose snapshot's L1 table, reaches past
// the end of the file. Each table has left entries that are in the file.
func cutImages(t *testing.T, left int) (active, snapshot []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	tool := func(name string, args ...string) { t.Helper(); testtool.Run(t, name, args...) }
	tool("qemu-img", "create", "-q", "-f", "qcow2", path, "3G")
	tool("qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 64k", "-c", "write -q -P 2 512M 64k", "-c", "write -q -P 3 2G 64k", path)
	tool("qemu-img", "snapshot", "-c", "s", path)
	read := func() []byte {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	// The snapshot's table goes to the end of the file.
	b := read()
	be := binary.BigEndian
	entry := be.Uint64(b[64:])
	table := b[be.Uint64(b[entry:]):][:6*8]
	end := (len(b) + 0xffff) &^ 0xffff
	snapshot = append(b, make([]byte, end-len(b))...)
	be.PutUint64(snapshot[entry:], uint64(end))
	snapshot = append(snapshot, table[:left*8+3]...) // and a part of one more
	// Growing moves the active one there.
	tool("qemu-img", "resize", "-q", path, "40000G")
	b = read()
	if off, n := be.Uint64(b[40:]), be.Uint32(b[36:]); off+uint64(n)*8 > uint64(len(b)) || uint64(len(b))-off-uint64(n)*8 > 0xffff {
		t.Fatalf("the L1 table at %#x is not at the end of %d bytes", off, len(b))
	} else {
		active = b[:off+uint64(left)*8+3]
	}
	return active, snapshot
}

// Past the end of a file that ends inside an L1 table nothing is allocated. Only callers that allow
// damage can read it, and they are told what is missing.
func TestCutL1(t *testing.T) {
	testtool.Need(t, "qemu-img")
	testtool.Need(t, "qemu-io")
	for _, left := range []int{0, 1, 2, 5} {
		active, snapshot := cutImages(t, left)
		open := func(b []byte, force bool) (*Image, error) {
			return Open(bytes.NewReader(b), int64(len(b)), Options{AllowCorrupt: force})
		}
		if _, err := open(active, false); !errors.Is(err, ErrCutL1) {
			t.Errorf("%d left: %v", left, err)
		}
		img, err := open(snapshot, false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := img.Snapshot(0); !errors.Is(err, ErrCutL1) {
			t.Errorf("%d left in the snapshot: %v", left, err)
		}
		if img, err = open(active, true); err != nil {
			t.Fatal(err)
		}
		checkCutL1(t, img.Active(), left)
		if img, err = open(snapshot, true); err != nil {
			t.Fatal(err)
		}
		v, err := img.Snapshot(0)
		if err != nil {
			t.Fatal(err)
		}
		checkCutL1(t, v, left)
		if n, _ := img.Active().CutL1(); n != 0 {
			t.Errorf("the active table lacks %d entries", n)
		}
		if err := img.Recheck(v); err != nil {
			t.Error(err)
		}
		// What the snapshot lacks differs from the active state.
		for _, pair := range [][2]*View{{v, img.Active()}, {img.Active(), v}, {v, v}} {
			want := sparse.Compare(pair[0], pair[1], 0, v.Size())
			named, err := sparse.Collect(Changed(pair[0], pair[1], 0, v.Size()))
			if err != nil {
				t.Fatal(err)
			}
			for e, err := range want {
				if err != nil {
					t.Fatal(err)
				}
				in := false
				for _, n := range named {
					in = in || n.Off <= e.Off && e.End() <= n.End()
				}
				if !in {
					t.Errorf("%d left: %v differs and is not named in %v", left, e, named)
				}
			}
		}
	}
	// A table that does not even begin in the file is lost.
	active, _ := cutImages(t, 0)
	lost := active[:len(active)-4]
	if img, err := Open(bytes.NewReader(lost), int64(len(lost)), Options{AllowCorrupt: true}); err == nil || errors.Is(err, ErrCutL1) {
		t.Errorf("%v, %v", img, err)
	}
}

// checkCutL1 checks a state that still has left L1 entries of 512 MiB each.
func checkCutL1(t *testing.T, v *View, left int) {
	t.Helper()
	const span = 512 << 20
	n, from := v.CutL1()
	if total := (v.Size() + span - 1) / span; n < 1 || n != total-int64(left) && v.snapshot != nil || from != int64(left)*span {
		t.Errorf("%d left: CutL1 = %d, %d of %d", left, n, from, total)
	}
	for i, at := range []int64{0, span, 4 * span} {
		p := make([]byte, 1)
		if _, err := v.ReadAt(p, at); err != nil {
			t.Fatal(err)
		}
		want := byte(i + 1)
		if at >= from {
			want = 0
		}
		if p[0] != want {
			t.Errorf("%d left: byte %d is %d, want %d", left, at, p[0], want)
		}
	}
	for e, err := range v.Extents(from, v.Size()-from) {
		if err != nil || e.Kind != sparse.Hole {
			t.Errorf("%d left: %v, %v", left, e, err)
		}
	}
}
