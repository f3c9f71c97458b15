package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cbt/internal/testtool"
)

// device makes a block device of the given size, filled with garbage.
func device(t *testing.T, size int) string {
	t.Helper()
	testtool.Need(t, "losetup")
	if os.Getuid() != 0 {
		t.Skip("block devices need root")
	}
	file := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(file, bytes.Repeat([]byte("garbage."), size/8), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := testtool.Try(t, "losetup", "--find", "--show", file)
	if err != nil {
		t.Skipf("this machine makes no loop devices: %s", out)
	}
	dev := strings.TrimSpace(out)
	t.Cleanup(func() { testtool.Run(t, "losetup", "--detach", dev) })
	return dev
}

// A disk of 1 MiB and two deltas of it.
func twoNights(t *testing.T) (dir string, mon, tue []byte) {
	t.Helper()
	dir = t.TempDir()
	mon = bytes.Repeat([]byte("monday\n."), 1<<17)
	clear(mon[256<<10 : 512<<10])
	tue = bytes.Clone(mon)
	copy(tue[900<<10:], "tuesday")
	for name, b := range map[string][]byte{"mon.raw": mon, "tue.raw": tue} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must(t, "diff", "--full", filepath.Join(dir, "mon.raw"), "-o", filepath.Join(dir, "mon.cbt"))
	must(t, "diff", filepath.Join(dir, "mon.raw"), filepath.Join(dir, "tue.raw"), "-o", filepath.Join(dir, "tue.cbt"))
	return dir, mon, tue
}

func must(t *testing.T, args ...string) {
	t.Helper()
	if code, _, stderr := run(t, args...); code != exitDone {
		t.Fatalf("cbt %q: exit %d, %s", args, code, stderr)
	}
}

func TestDevices(t *testing.T) {
	dir, mon, tue := twoNights(t)
	state := t.TempDir()
	delta := filepath.Join(dir, "mon.cbt")
	for _, c := range []struct {
		name string
		size int
		args []string
		code int
	}{
		{"too small", len(mon) - 4096, []string{"--in-place", "--state-dir", state}, exitFailed},
		{"no record's place", len(mon), []string{"--in-place"}, exitUsage},
		{"not said", len(mon), []string{"--state-dir", state}, exitUsage},
		{"fits", len(mon), []string{"--in-place", "--state-dir", state}, exitDone},
		{"larger", len(mon) + 1<<20, []string{"--in-place", "--state-dir", state}, exitDone},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			dev := device(t, c.size)
			before := content(t, dev)
			code, _, stderr := run(t, append(append([]string{"restore"}, c.args...), delta, dev)...)
			if code != c.code {
				t.Fatalf("exit %d, want %d: %s", code, c.code, stderr)
			}
			after := content(t, dev)
			if c.code != exitDone {
				if !bytes.Equal(after, before) {
					t.Error("a refused device was written to")
				}
				return
			}
			if !bytes.Equal(after[:len(mon)], mon) || !bytes.Equal(after[len(mon):], before[len(mon):]) {
				t.Error("the device does not hold monday, or not what was behind it")
			}
			must(t, "apply", "--state-dir", state, filepath.Join(dir, "tue.cbt"), dev)
			if !bytes.Equal(content(t, dev)[:len(tue)], tue) {
				t.Error("the device does not hold tuesday")
			}
			if code, _, stderr := run(t, "apply", "--state-dir", state, filepath.Join(dir, "tue.cbt"), dev); code != exitWrongBase {
				t.Errorf("applied twice: exit %d, %s", code, stderr)
			}
		})
	}
}

// The message of a device that is too small says by how much.
func TestDeviceTooSmallSays(t *testing.T) {
	dir, mon, _ := twoNights(t)
	dev := device(t, 65536)
	_, _, stderr := run(t, "restore", "--in-place", "--state-dir", t.TempDir(), filepath.Join(dir, "mon.cbt"), dev)
	for _, want := range []string{dev, "65536", strconv.Itoa(len(mon))} {
		if !strings.Contains(stderr, want) {
			t.Errorf("%q lacks %s", stderr, want)
		}
	}
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
