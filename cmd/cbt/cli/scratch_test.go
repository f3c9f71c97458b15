package cli

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/fail"
	"cbt/internal/overlay"
	"cbt/internal/testtool"
)

// TestOverlay: what is written to a source goes to the overlay and is there in
// the next run; the source stays what it is, and another one is refused.
func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	path, over := filepath.Join(dir, "i.qcow2"), filepath.Join(dir, "over")
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "8M")
	testtool.Run(t, "qemu-io", "-c", "write -P 1 0 4M", path)
	testtool.Run(t, "qemu-img", "snapshot", "-c", "one", path)
	before := hashFile(t, path)

	open := func(ref, over string) (*opener, *overlay.Image, error) {
		o := newTestOpener(t, openerOptions{})
		s := mustOpen(t, o, ref, refOptions{})
		v, err := o.guarded(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		img, err := o.overlay(s, v, over)
		return o, img, err
	}
	o, img, err := open(path+"@one", over)
	if err != nil {
		t.Fatal(err)
	}
	p := bytes.Repeat([]byte{7}, 10000)
	if _, err := img.WriteAt(p, 5<<20+100); err != nil {
		t.Fatal(err)
	}
	if _, _, err := open(path+"@one", over); exitOf(err) != fail.BusyCode {
		t.Errorf("two at once: %v", err)
	}
	if n, err := o.syncOverlays(); n != 3*overlay.BlockSize || err != nil {
		t.Error(n, err)
	}
	o.Close()
	o, img, err = open(path+"@one", over)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10000)
	if _, err := img.ReadAt(got, 5<<20+100); err != nil || !bytes.Equal(got, p) {
		t.Error("the next run reads something else", err)
	}
	o.Close()
	if st, err := os.Stat(over); err != nil || st.Mode() != 0o600 {
		t.Error(st.Mode(), err)
	}
	if _, _, err := open(path, over); exitOf(err) != fail.WrongBaseCode {
		t.Errorf("over another state: %v", err)
	}
	if _, _, err := open(path, path); exitOf(err) != fail.UsageCode {
		t.Errorf("the source itself: %v", err)
	}
	if o, img, err := open(path, overlayTmp); err != nil {
		t.Error(err)
	} else {
		if _, err := img.WriteAt(p, 0); err != nil {
			t.Error(err)
		}
		o.Close()
	}
	if after := hashFile(t, path); after != before {
		t.Error("the source changed")
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 2 {
		t.Error(strings.Join(names, " "))
	}
}

func exitOf(err error) int {
	var coded *fail.Error
	if errors.As(err, &coded) {
		return coded.Code
	}
	return -1
}

func hashFile(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}
