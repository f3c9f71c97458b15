package cli

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"cbt/internal/fail"
	"cbt/internal/testtool"
	"cbt/sparse"
)

// TestGuarded: what a guarded view gives away is what the source held when it
// was opened, whatever becomes of the file; and a machine that goes on beside
// a snapshot does not end it.
func TestGuarded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "i.qcow2")
	qemuIO := func(args ...string) { t.Helper(); testtool.Run(t, "qemu-io", append(args, path)...) }
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "8M")
	qemuIO("-c", "write -P 1 0 4M")
	testtool.Run(t, "qemu-img", "snapshot", "-c", "one", path)
	qemuIO("-c", "write -P 2 0 1M")
	testtool.Run(t, "qemu-img", "snapshot", "-c", "two", path)

	o := newTestOpener(t, openerOptions{})
	open := func(ref string) sparse.View {
		t.Helper()
		v, err := o.guarded(t.Context(), mustOpen(t, o, ref, refOptions{}))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	one, two := open(path+"@one"), open(path+"@two")
	read := func(v sparse.View, off int64, want byte) error {
		t.Helper()
		p := make([]byte, 4096)
		if _, err := v.ReadAt(p, off); err != nil {
			return err
		}
		if p[0] != want || p[4095] != want {
			t.Errorf("read %d at %d, should be %d", p[0], off, want)
		}
		_, err := sparse.Total(v.Extents(off, 4096))
		return err
	}
	all := func() {
		t.Helper()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for off := int64(0); off < 1<<20; off += 64 << 10 {
					if err := read(one, off, 1); err != nil {
						t.Error(err)
					}
					if err := read(two, off, 2); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	all()
	time.Sleep(2 * settled)
	all() // now the times of the file tell
	if g := two.(*guardedView).guard; !g.quiet() {
		t.Error("looks again though nothing happened")
	}
	qemuIO("-c", "write -P 3 0 3M")
	all()

	// The blocks of a deleted snapshot become the machine's.
	testtool.Run(t, "qemu-img", "snapshot", "-d", "one", path)
	qemuIO("-c", "write -P 9 3M 1M", "-c", "write -P 9 4M 4M")
	if err := read(one, 0, 1); err == nil {
		t.Error("a snapshot that was deleted is read")
	}
	if err := read(two, 0, 2); err != nil {
		t.Error(err)
	}
	testtool.Run(t, "qemu-img", "snapshot", "-c", "one", path)
	if err := read(one, 0, 1); err == nil {
		t.Error("a snapshot that took the place of another is read")
	}
}

func TestGuardedRaw(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	o := newTestOpener(t, openerOptions{})
	v, err := o.guarded(t.Context(), mustOpen(t, o, path, refOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4096)
	if n, err := v.ReadAt(p, 0); n != 4096 || err != nil {
		t.Fatal(n, err)
	}
	time.Sleep(2 * settled)
	if n, err := v.ReadAt(p, 0); n != 4096 || err != nil {
		t.Fatal(n, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{1}, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := v.ReadAt(p, 0); err == nil {
		t.Error("a file that was written to is read")
	}
	if _, err := sparse.Total(v.Extents(0, 4096)); err == nil {
		t.Error("and its extents")
	}
}

func TestDirectoryOfDeltasIsLocked(t *testing.T) {
	dir := t.TempDir()
	one, two, prune := newTestOpener(t, openerOptions{}), newTestOpener(t, openerOptions{}), newTestOpener(t, openerOptions{})
	share := func(o *opener) error { return o.Share(t.Context(), dir, 0) }
	if err := errors.Join(share(one), share(one), share(two)); err != nil {
		t.Fatal(err)
	}
	var coded *fail.Error
	if err := prune.Own(t.Context(), dir, 0); !errors.As(err, &coded) || coded.Code != fail.BusyCode {
		t.Errorf("two share it: %v", err)
	}
	one.Close()
	two.Close()
	if err := prune.Own(t.Context(), dir, 0); err != nil {
		t.Error(err)
	}
	if err := share(one); !errors.As(err, &coded) || coded.Code != fail.BusyCode {
		t.Errorf("prune has it: %v", err)
	}
}
