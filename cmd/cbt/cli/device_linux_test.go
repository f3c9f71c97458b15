package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"cbt/internal/fail"
	"cbt/internal/store"
	"cbt/internal/testtool"
)

// loopDevice makes a block device of a file, for as long as the test runs.
func loopDevice(t *testing.T, path string) string {
	t.Helper()
	out, err := testtool.Try(t, "losetup", "--find", "--show", path)
	if err != nil {
		t.Skipf("no loop devices here: %s", out)
	}
	device := strings.TrimSpace(out)
	t.Cleanup(func() { testtool.Run(t, "losetup", "-d", device) })
	return device
}

func TestBlockDevice(t *testing.T) {
	testtool.Need(t, "qemu-img")
	dir := t.TempDir()
	t.Chdir(dir)
	content := strings.Repeat("device ", 1<<16)[:256<<10]
	if err := os.WriteFile("disk", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	device := loopDevice(t, "disk")
	code, out, stderr := run(t, "cat", device)
	if code != fail.Done || out != content {
		t.Errorf("cat: exit %d, %d bytes, %s", code, len(out), stderr)
	}
	// Nothing tells whether a device was written to.
	for _, opt := range []openerOptions{{}, {Frozen: true}} {
		if s := mustOpen(t, newTestOpener(t, opt), device, refOptions{}); s.Point != "" || s.View.Size() != int64(len(content)) {
			t.Errorf("point %q, size %d", s.Point, s.View.Size())
		}
	}

	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", device, "-F", "raw", "over.qcow2")
	testtool.Run(t, "qemu-img", "snapshot", "-c", "monday", "over.qcow2")
	if code, _, stderr := run(t, "cat", "over.qcow2"); code != fail.UsageCode || !strings.Contains(stderr, "--allow /dev would allow it") {
		t.Errorf("over a device: exit %d, %s", code, stderr)
	}
	if code, out, stderr := run(t, "cat", "--allow", "/dev", "over.qcow2@monday"); code != fail.Done || out != content {
		t.Errorf("over a device: exit %d, %d bytes, %s", code, len(out), stderr)
	}
	s := mustOpen(t, newTestOpener(t, openerOptions{Allow: []string{"/dev"}}), "over.qcow2@monday", refOptions{})
	if s.Point != "" {
		t.Errorf("over a device: point %s", s.Point)
	}
}

// A guest writes the first sectors of its disk: they are not believed.
func TestQcow2OnDevice(t *testing.T) {
	testtool.Need(t, "qemu-img")
	t.Chdir(t.TempDir())
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "disk", "1M")
	testtool.Run(t, "truncate", "-s", "1M", "disk")
	testtool.Run(t, "qemu-img", "rebase", "-u", "-b", "/dev/null", "-F", "raw", "disk")
	device := loopDevice(t, "disk")
	if code, _, stderr := run(t, "info", device); code != fail.UsageCode || !strings.Contains(stderr, "a guest's doing") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	// Even as qcow2 it does not own its neighbours in /dev.
	code, _, stderr := run(t, "cat", "--format", "qcow2", device)
	if code != fail.UsageCode || !strings.Contains(stderr, "is outside the image's directory") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	if err := os.Symlink(device, "link"); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := run(t, "info", "link"); code != fail.UsageCode || !strings.Contains(stderr, "a guest's doing") {
		t.Errorf("by a link: exit %d, %s", code, stderr)
	}
}

// The node of a device has times, which have nothing to do with what is on it: its
// points are of the time of the run, by the names of the files.
func TestDeviceTellsNoTime(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := errors.Join(os.WriteFile("disk", make([]byte, 256<<10), 0o600), os.Mkdir("b", 0o700)); err != nil {
		t.Fatal(err)
	}
	device := loopDevice(t, "disk")
	for night := range 2 {
		testtool.Run(t, "sh", "-c", fmt.Sprintf("printf night%d >%s; sync", night, device))
		before := time.Now().Add(-time.Second)
		if code, _, stderr := run(t, "backup", "--name", "vm", "--frozen", device, "b"); code != fail.Done {
			t.Fatal(stderr)
		}
		files := dirNames(t, "b")
		if _, at, ok := store.SplitName(files[len(files)-1]); !ok || at.Before(before) || len(files) != night+1 {
			t.Fatalf("after %v: %v", before, files)
		}
		if code, out, stderr := run(t, "log", "--json", "b"); code != fail.Done || strings.Contains(out, "instant") {
			t.Fatalf("exit %d: %s%s", code, out, stderr)
		}
		time.Sleep(1100 * time.Millisecond) // names have seconds
	}
	if code, out, stderr := run(t, "cat", "b@latest"); code != fail.Done || !strings.HasPrefix(out, "night1") {
		t.Errorf("the newest: exit %d, %s", code, stderr)
	}
	if code, _, stderr := run(t, "log", "--max-age", "1h", "b"); code != fail.Done {
		t.Errorf("the age: exit %d, %s", code, stderr)
	}
	if code, _, stderr := run(t, "prune", "b", "--keep-last", "1", "--rebase-every", "0"); code != fail.Done || len(dirNames(t, "b")) != 1 {
		t.Errorf("prune: exit %d, %s, %v", code, stderr, dirNames(t, "b"))
	}
	if code, out, _ := run(t, "cat", "b@latest"); code != fail.Done || !strings.HasPrefix(out, "night1") {
		t.Error("the newest is gone")
	}
}
