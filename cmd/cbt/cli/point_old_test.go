package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/store"
	"cbt/internal/testtool"
)

// oldDelta writes a full delta of ref as an earlier version did: its point has
// no second part, and it names no machine and no source.
func oldDelta(t *testing.T, ref, path string) {
	t.Helper()
	must(t, fail.Done, "diff", "-q", "--full", ref, "-o", path)
	withHeader(t, path, func(h *cbt.Header) {
		h.Machine, h.Streams[0].Source = "", ""
		to := h.Streams[0].To
		if h.Streams[0].To = store.WithoutTimes(to); h.Streams[0].To == to {
			t.Fatalf("%s: its point %s has no second part", ref, to)
		}
	})
}

// A directory that an earlier version made goes on, whatever its files are
// called: a comparison, no full delta, no missing parent.
func TestOldPointsGoOn(t *testing.T) {
	testtool.Need(t, "qemu-img")
	t.Chdir(t.TempDir())
	if err := os.WriteFile("disk.raw", bytes.Repeat([]byte("disk"), 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", "over.qcow2")
	testtool.Run(t, "qemu-img", "snapshot", "-c", "mon", "over.qcow2")
	for _, ref := range []string{"disk.raw", "over.qcow2@mon"} {
		dir, err := os.MkdirTemp(".", "dir")
		if err != nil {
			t.Fatal(err)
		}
		oldDelta(t, ref, dir+"/whatever.cbt")
		for i, want := range []string{"so its content is compared", "has " + ref + " already"} {
			code, _, stderr := run(t, "backup", ref, dir)
			if code != fail.Done || !strings.Contains(stderr, want) || strings.Contains(stderr, "in full") {
				t.Errorf("backup %s, run %d: exit %d, %s", ref, i+1, code, stderr)
			}
		}
		if code, out, _ := run(t, "verify", dir); code != fail.Done || strings.Count(out, ": ok") != 2 {
			t.Errorf("%s: verify: exit %d, %s", ref, code, out)
		}
	}

	// diff -o and apply go by it too.
	oldDelta(t, "disk.raw", "old.cbt")
	if err := os.WriteFile("next.raw", bytes.Repeat([]byte("DISK"), 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := run(t, "diff", "disk.raw", "next.raw", "-o", "next.cbt"); code != fail.Done || !strings.Contains(stderr, "comparing it with that") {
		t.Errorf("diff: exit %d, %s", code, stderr)
	}
	if code, _, stderr := run(t, "restore", "next.cbt", "restored.raw"); code != fail.Done {
		t.Errorf("restore: exit %d, %s", code, stderr)
	}
	if code, _, stderr := run(t, "-v", "apply", "next.cbt", "disk.raw"); code != fail.Done || !strings.Contains(stderr, "comparing all of it") {
		t.Errorf("apply: exit %d, %s", code, stderr)
	}
	a, _ := os.ReadFile("disk.raw")
	b, _ := os.ReadFile("restored.raw")
	if !bytes.Equal(a, b) || !bytes.HasPrefix(a, []byte("DISK")) {
		t.Error("applied and restored are not the same")
	}
}
