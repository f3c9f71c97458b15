//go:build linux && cbtlive

package hostlvm_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"cbt/internal/hostlvm"
)

func TestDisks(t *testing.T) {
	h := host(t)
	list := func() (names []string, notes []string) {
		disks, notes, err := h.Disks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer hostlvm.CloseDisks(disks)
		for _, d := range disks {
			names = append(names, d.Name())
			if len(d.Groups) == 1 != (d.Name() != "/dev/vdc") {
				t.Errorf("%s: used by groups %q", d.Name(), d.Groups)
			}
		}
		return names, notes
	}
	check := func(what, wantNotes string, want ...string) {
		t.Helper()
		if names, notes := list(); !slices.Equal(names, want) || strings.Join(notes, "; ") != wantNotes {
			t.Errorf("%s: %q, notes %q", what, names, notes)
		}
	}
	check("as it is", "", "/dev/vda", "/dev/vdb1")

	// A logical volume that looks like a physical one, a guest's, is left out;
	// a device on top of one that LVM did not make is not.
	sh(t, "dd if=/dev/vdb1 of=/dev/vg/idle bs=1M count=1 oflag=direct iflag=direct")
	check("LV", "", "/dev/vda", "/dev/vdb1")

	sh(t, "dd if=/dev/vdb1 of=/dev/vdc bs=1M oflag=direct iflag=direct")
	check("copy", "/dev/vdc is a copy of /dev/vdb1, which is in use: left out", "/dev/vda", "/dev/vdb1")

	// Multipath, and whatever else stands on a disk, hides it.
	sh(t, `dmsetup create -u mpath-x multi --table "0 131072 linear /dev/vdc 0"`)
	if names, _ := list(); slices.Contains(names, "/dev/vdc") {
		t.Errorf("a disk below a multipath device: %q", names)
	}
	sh(t, "dmsetup remove multi")

	sh(t, "vgchange -q -an part")
	if names, notes := listRaw(t, h); !slices.Equal(names, []string{"/dev/vda", "/dev/vdb1", "/dev/vdc"}) || len(notes) > 0 {
		t.Errorf("copies neither of which is in use: %q, notes %q", names, notes)
	}
	sh(t, "vgchange -q -ay part")

	// A leg of an md mirror with its superblock at the end.
	f, err := os.OpenFile("/dev/vdc", os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0}, 64<<20-8<<10); err != nil {
		t.Fatal(err)
	}
	f.Close()
	check("md member", "", "/dev/vda", "/dev/vdb1")
	sh(t, "dd if=/dev/zero of=/dev/vdc bs=1M count=1 oflag=direct; dd if=/dev/urandom of=/dev/vg/idle bs=1M count=5 oflag=direct")
}

func listRaw(t *testing.T, h *hostlvm.Host) (names, notes []string) {
	disks, notes, err := h.Disks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer hostlvm.CloseDisks(disks)
	for _, d := range disks {
		names = append(names, d.Name())
	}
	return names, notes
}

func TestDirectReadsWhatBufferedReadsRead(t *testing.T) {
	sh(t, `dmsetup create -u odd odd --table "0 8203 linear /dev/vg/idle 0"; dmsetup mknodes`)
	defer sh(t, "dmsetup remove odd")
	for _, path := range []string{"/dev/vg/idle", "/dev/vdb1", "/dev/mapper/odd"} {
		d, err := hostlvm.OpenDirect(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := io.ReadAll(f)
		f.Close()
		if err != nil || int64(len(want)) != d.Size() {
			t.Fatalf("%s: %d bytes of %d, %v", path, len(want), d.Size(), err)
		}
		var wg sync.WaitGroup
		for worker := range 12 {
			wg.Go(func() {
				r := rand.New(rand.NewSource(int64(worker)))
				for range 40 {
					off := r.Int63n(d.Size())
					n := min(r.Int63n(3<<20)>>r.Intn(22), d.Size()-off)
					p := make([]byte, n)
					if got, err := d.ReadAt(p, off); int64(got) != n || err != nil || !bytes.Equal(p, want[off:off+n]) {
						t.Errorf("%s: %d bytes at %d: %d, %v", path, n, off, got, err)
						return
					}
				}
			})
		}
		wg.Wait()
		p := make([]byte, 5000)
		if n, err := d.ReadAt(p, d.Size()-1234); n != 1234 || err != io.EOF || !bytes.Equal(p[:n], want[len(want)-1234:]) {
			t.Errorf("%s: at the end: %d, %v", path, n, err)
		}
		if n, err := d.ReadAt(p, d.Size()); n != 0 || err != io.EOF {
			t.Errorf("%s: past the end: %d, %v", path, n, err)
		}
		if n, err := d.ReadAt(p, -1); n != 0 || err == nil {
			t.Errorf("%s: before the start: %d, %v", path, n, err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if _, err := d.ReadAt(p, 0); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: closed: %v", path, err)
		}
	}
	if _, err := hostlvm.OpenDirect("/live.test"); err == nil {
		t.Error("a file is taken for a block device")
	}
}

func TestDirectSeesWhatWasWrittenBelowTheCache(t *testing.T) {
	sh(t, `dd if=/dev/zero of=/dev/vdc bs=1M count=1 oflag=direct; dmsetup create -u top top --table "0 2048 linear /dev/vdc 0"; dmsetup mknodes`)
	defer sh(t, "dmsetup remove top")
	buffered, err := os.Open("/dev/vdc")
	if err != nil {
		t.Fatal(err)
	}
	defer buffered.Close()
	d, err := hostlvm.OpenDirect("/dev/vdc")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var old, direct [100]byte
	if _, err := buffered.ReadAt(old[:], 5000); err != nil {
		t.Fatal(err)
	}
	sh(t, "tr '\\0' x </dev/zero | dd of=/dev/mapper/top bs=4096 count=16 iflag=fullblock oflag=direct")
	_, err1 := buffered.ReadAt(old[:], 5000)
	_, err2 := d.ReadAt(direct[:], 5000)
	if err1 != nil || err2 != nil || direct[0] != 'x' || direct[99] != 'x' {
		t.Errorf("read %q, %v, %v", direct, err1, err2)
	}
	if old[0] != 0 {
		t.Errorf("a buffered read sees %q: this test shows nothing", old)
	}
}
