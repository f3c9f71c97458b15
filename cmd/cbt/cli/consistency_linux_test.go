package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cbt/cbt"
	"cbt/internal/testtool"
)

// nightOf has images of one disk with the file system kind in partition 1, as a
// machine has it: frozen, and in use.
func nightOf(t *testing.T, kind string) (frozen, used string) {
	t.Helper()
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk.raw")
	testtool.Need(t, "fsfreeze")
	testtool.Run(t, "truncate", "-s", "330M", disk)
	testtool.Run(t, "sh", "-c", `printf 'label: gpt\nstart=2048\n' | sfdisk -q "$0"`, disk)
	loop := testtool.Loop(t, disk, "--offset", "1048576", "--sizelimit", "343932928")
	testtool.Run(t, "mkfs."+kind, "-q", loop)
	mnt := testtool.Mount(t, kind, loop)
	fill := func(name string) {
		if out, err := exec.Command("sh", "-ec", `mkdir "$0/$1"; cp /etc/passwd "$0/$1"; sync -f "$0"`, mnt, name).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	take := func(name string) string {
		path := filepath.Join(dir, name)
		testtool.Run(t, "cp", "--sparse=always", disk, path)
		return path
	}
	fill("a")
	testtool.Run(t, "fsfreeze", "-f", mnt)
	frozen = take("frozen.raw")
	testtool.Run(t, "fsfreeze", "-u", mnt)
	fill("b")
	return frozen, take("used.raw")
}

// A label that says more than the file systems do is warned of; one that is true is not.
func TestConsistencyIsLookedAt(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			frozen, used := nightOf(t, kind)
			for _, level := range []string{"filesystem", "application"} {
				code, _, stderr := run(t, "diff", "--full", "--consistency", level, frozen, "-o", filepath.Join(t.TempDir(), "a.cbt"))
				if code != 0 || strings.Contains(stderr, "warning") {
					t.Errorf("%s of what is frozen: exit %d: %s", level, code, stderr)
				}
				b := t.TempDir()
				code, _, stderr = run(t, "backup", "--consistency", level, used, b)
				if want := "partition 1 (" + kind + ") was not frozen: "; code != 0 || strings.Count(stderr, want) != 1 || !strings.Contains(stderr, "--consistency "+level+" says more than is true") {
					t.Errorf("%s of what is in use: exit %d: %s", level, code, stderr)
				}
				if _, stdout, _ := run(t, "log", b); !strings.Contains(stdout, levels[cbt.Crash].brief) {
					t.Errorf("%s of what is in use is recorded: %s", level, stdout)
				}
			}
			if _, _, stderr := run(t, "backup", used, t.TempDir()); strings.Contains(stderr, "frozen") {
				t.Errorf("without a label: %s", stderr)
			}
		})
	}
}

// As most distributions install it: the file system is on a logical volume in a partition.
func TestConsistencyOfVolume(t *testing.T) {
	dir := t.TempDir()
	disk, pv := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "pv")
	testtool.Run(t, "truncate", "-s", "70M", disk)
	testtool.Run(t, "truncate", "-s", "64M", pv)
	testtool.Run(t, "sh", "-c", `printf 'label: gpt\nstart=2048,size=131072,type=E6D6D379-F507-44C2-A23C-238F2A3DF928\n' | sfdisk -q "$0"`, disk)
	whole := testtool.Loop(t, pv)
	lvmOf := func(args ...string) {
		t.Helper()
		testtool.Run(t, "lvm", append(args[:1:1], append([]string{"-q", "--devices", whole, "--driverloaded", "n"}, args[1:]...)...)...)
	}
	lvmOf("pvcreate", whole)
	lvmOf("vgcreate", "cbtlabel", whole)
	lvmOf("lvcreate", "-an", "-Zn", "-Wn", "-L", "32M", "-n", "root", "cbtlabel")
	volume := testtool.Loop(t, pv, "--offset", "1048576", "--sizelimit", "33554432")
	testtool.Run(t, "mkfs.ext4", "-q", volume)
	at := testtool.Mount(t, "ext4", volume)
	take := func(name string) string {
		testtool.Run(t, "sh", "-c", `cp --sparse=always "$0" "$1"; dd if="$2" of="$1" bs=1M seek=1 conv=notrunc,sparse status=none`, disk, filepath.Join(dir, name), pv)
		return filepath.Join(dir, name)
	}
	testtool.Run(t, "sh", "-ec", `cp /etc/passwd "$0"; sync -f "$0"`, at)
	used := take("used.raw")
	testtool.Run(t, "fsfreeze", "-f", at)
	frozen := take("frozen.raw")
	testtool.Run(t, "fsfreeze", "-u", at)
	const want = ": volume cbtlabel/root: ext4 was not frozen: "
	if code, _, stderr := run(t, "backup", "--consistency", "filesystem", used, t.TempDir()); code != 0 || strings.Count(stderr, want) != 1 {
		t.Errorf("in use: exit %d: %s", code, stderr)
	}
	if code, _, stderr := run(t, "backup", "--consistency", "filesystem", frozen, t.TempDir()); code != 0 || strings.Contains(stderr, "warning") {
		t.Errorf("frozen: exit %d: %s", code, stderr)
	}
}

// The level is shown by every command that shows a point, and a second run that
// would change it says that it does not.
func TestConsistencyIsShown(t *testing.T) {
	dir, b := t.TempDir(), t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(raw, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	must := func(want string, args ...string) string {
		t.Helper()
		code, stdout, stderr := run(t, args...)
		if code != 0 || !strings.Contains(stdout+stderr, want) {
			t.Errorf("cbt %s: exit %d, no %q in %s%s", strings.Join(args, " "), code, want, stdout, stderr)
		}
		return strings.TrimSpace(stdout)
	}
	delta := must("", "backup", "--consistency", "filesystem", raw, b)
	must("--consistency application changes nothing: the delta is there, and is called filesystem", "backup", "--consistency", "application", raw, b)
	if _, _, stderr := run(t, "backup", raw, b); strings.Contains(stderr, "changes nothing") {
		t.Errorf("no label was given: %s", stderr)
	}
	if _, _, stderr := run(t, "backup", "--consistency", "filesystem", raw, b); strings.Contains(stderr, "changes nothing") {
		t.Errorf("the same label was given: %s", stderr)
	}
	must("file systems frozen", "log", b)
	must("filesystem: with its file systems frozen", "info", delta)
	must("with its file systems frozen", "restore", delta, filepath.Join(dir, "new.raw"))
	must("with its file systems frozen", "serve", delta, "--run", "true")
	m := mountFor(t, b)
	if said := m.stderr(); !strings.Contains(said, b+": 1 point (file systems frozen)") {
		t.Errorf("mount says %s", said)
	}
	var list []map[string]any
	if err := json.Unmarshal([]byte(must("", "log", "--json", b)), &list); err != nil || list[0]["consistency"] != "filesystem" {
		t.Errorf("log --json: %v, %v", list, err)
	}
}
