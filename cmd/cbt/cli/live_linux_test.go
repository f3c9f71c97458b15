//go:build amd64

package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cbt/internal/testvm"
)

// TestLive runs the stories in testdata/live in one test machine, which has
// LVM, device-mapper and md: as root, with cbt, qemu-img, qemu-io and the disks
// /dev/vda to /dev/vdd, of 256 MiB each. Each begins with lib.sh, which gives
// the disks back empty, and ends well with exit code 0.
func TestLive(t *testing.T) {
	stories, err := filepath.Glob("testdata/live/*.sh")
	if err != nil || len(stories) < 2 {
		t.Fatal(stories, err)
	}
	lib, err := os.ReadFile("testdata/live/lib.sh")
	if err != nil {
		t.Fatal(err)
	}
	testvm.Need(t, "qemu-img", "qemu-io", "unshare", "losetup")
	dir := t.TempDir()
	bin := filepath.Join(dir, "cbt")
	build := exec.Command("go", "build", "-trimpath", "-o", bin, "cbt/cmd/cbt")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	var disks []testvm.Disk
	for _, name := range []string{"vda", "vdb", "vdc", "vdd"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 256<<20); err != nil {
			t.Fatal(err)
		}
		disks = append(disks, testvm.Disk{Path: path})
	}
	vm := testvm.Start(t, testvm.Options{
		Disks: disks, Memory: 1024, CPUs: 2, Modules: []string{"md_mod", "linear"},
		Programs: []string{"qemu-img", "qemu-io"},
		Files:    map[string]string{"/bin/cbt": bin},
	})
	for _, story := range stories {
		name := strings.TrimSuffix(filepath.Base(story), ".sh")
		if name == "lib" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(story)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			r, err := vm.Exec(testvm.Command{Script: string(lib) + string(text), Timeout: 8 * time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%v\n%s%s", time.Since(start).Round(time.Millisecond), r.Stdout, r.Stderr)
			if r.Exit != 0 {
				t.Errorf("exit %d", r.Exit)
			}
		})
	}
}
