package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/testtool"
)

// mapped is a file of 64 KiB and its bytes in memory, which are the file's.
func mapped(t *testing.T, path string) (write func(b byte)) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(64 << 10); err != nil {
		t.Fatal(err)
	}
	p, err := unix.Mmap(int(f.Fd()), 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(p) })
	return func(b byte) { p[100] = b }
}

// A page that was written to through a mapping takes further writes without a
// word, until it is written back: then the next one changes the times.
func TestWriteThroughMapping(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.raw")
	write := mapped(t, path)
	write(1)
	time.Sleep(3 * infile.FineTick)
	s := mustOpen(t, newTestOpener(t, openerOptions{}), path, refOptions{})
	time.Sleep(infile.FineTick)
	write(2)
	if err := s.Recheck(); err == nil {
		t.Error("a write through a mapping goes unnoticed while the file is read")
	}
	if p := pointOf(t, path, openerOptions{}); p == s.Point {
		t.Error("a write through a mapping does not end the point")
	}
}

// In memory there is nothing to write back.
func TestWriteThroughMappingOfTmpfs(t *testing.T) {
	path := filepath.Join(testtool.Mount(t, "tmpfs", "tmpfs", "size=8m"), "disk.raw")
	write := mapped(t, path)
	write(1)
	time.Sleep(3 * infile.FineTick)
	_, err := newTestOpener(t, openerOptions{}).open(t.Context(), path, refOptions{})
	if code := (*fail.Error)(nil); !errors.As(err, &code) || code.Code != fail.BusyCode || !strings.Contains(err.Error(), "--frozen says") {
		t.Errorf("open for writing elsewhere: %v", err)
	}
	if s := mustOpen(t, newTestOpener(t, openerOptions{Frozen: true}), path, refOptions{}); s.Point == "" {
		t.Error("--frozen: no point")
	}

	// Who comes later is seen.
	other := filepath.Join(filepath.Dir(path), "other.raw")
	if err := os.WriteFile(other, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, newTestOpener(t, openerOptions{}), other, refOptions{})
	if s.Point == "" {
		t.Fatal("no point")
	}
	time.Sleep(infile.FineTick)
	mapped(t, other)(1)
	if err := s.Recheck(); err == nil {
		t.Error("a write through a later mapping goes unnoticed")
	}
}
