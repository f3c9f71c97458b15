package qcow2

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"cbt/internal/testtool"
	"cbt/sparse"
)

// A disk shrank and grew again. Its bitmap has no record of what was cut off, so ChangedByBitmap
// goes by the old disk. QEMU makes the image and the bitmap.
func TestBitmapOfShrunkDisk(t *testing.T) {
	dir := t.TempDir()
	path, before := filepath.Join(dir, "now.qcow2"), filepath.Join(dir, "old.qcow2")
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "4M")
	testtool.Run(t, "qemu-io", "-c", "write -q -P 1 0 4M", path)
	testtool.Run(t, "cp", path, before)
	testtool.Run(t, "qemu-img", "bitmap", "--add", path, "since")
	testtool.Run(t, "qemu-img", "resize", "-q", "--shrink", path, "1M")
	testtool.Run(t, "qemu-img", "resize", "-q", path, "5M")
	testtool.Run(t, "qemu-io", "-c", "write -q -P 2 64k 64k", path)

	old, now := mustOpen(t, before).Active(), mustOpen(t, path).Active()
	bits, err := sparse.Total(now.recorded("since", 0, now.Size()))
	if err != nil || bits >= 3<<20 {
		t.Fatalf("%d bytes recorded, so nothing was forgotten: %v", bits, err)
	}
	got, want := readAll(t, old), readAll(t, now)
	got = append(got, make([]byte, len(want)-len(got))...)
	for _, e := range extents(t, now.ChangedByBitmap(old, "since", 0, now.Size())) {
		copy(got[e.Off:e.End()], want[e.Off:])
	}
	if !bytes.Equal(got, want) {
		t.Error("bytes differ that are not named")
	}
	// Ranges that begin after the end of either disk are not errors.
	for _, c := range []struct{ old, new *View }{{old, now}, {now, now}} {
		if _, err := sparse.Collect(c.new.ChangedByBitmap(c.old, "since", 5<<20, 0)); err != nil {
			t.Error(err)
		}
	}
	testtool.Run(t, "qemu-img", "bitmap", "--disable", path, "since")
	if _, err := sparse.Collect(mustOpen(t, path).Active().ChangedByBitmap(old, "since", 0, 0)); !errors.Is(err, ErrBitmapDisabled) {
		t.Error(err)
	}
}

func readAll(t *testing.T, v sparse.View) []byte {
	t.Helper()
	p := make([]byte, v.Size())
	if _, err := sparse.ReadFull(v, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}
