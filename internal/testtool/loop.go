package testtool

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Loop attaches a file to a loop device, with further losetup options such as
// "--sector-size=4096", and returns the device's path. It is detached when the
// test ends. Without root or loop devices the test is skipped.
func Loop(t testing.TB, file string, options ...string) string {
	t.Helper()
	needRoot(t)
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("no loop devices: ", err)
	}
	losetup := Need(t, "losetup")
	args := append([]string{"--find", "--show"}, options...)
	out, errOut, err := run(losetup, append(args, file))
	if err != nil {
		t.Skipf("losetup: %v: %s", err, errOut)
	}
	dev := strings.TrimSpace(out)
	t.Cleanup(func() {
		if _, errOut, err := run(losetup, []string{"--detach", dev}); err != nil {
			t.Errorf("losetup --detach %s: %v: %s", dev, err, errOut)
		}
	})
	return dev
}

// Mount mounts a filesystem at a new directory, which it returns, until the
// test ends. Without root, or where the kernel does not have the filesystem,
// the test is skipped. An empty device is for filesystems without one.
func Mount(t testing.TB, fstype, device string, options ...string) string {
	t.Helper()
	needRoot(t)
	if device == "" {
		device = "none"
	}
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	args := []string{"-t", fstype}
	if len(options) > 0 {
		args = append(args, "-o", strings.Join(options, ","))
	}
	if _, errOut, err := run(Need(t, "mount"), append(args, device, dir)); err != nil {
		t.Skipf("mount -t %s %s: %v: %s", fstype, device, err, errOut)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
	return dir
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}
