package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cbt/internal/testqemu"
	"cbt/internal/testtool"
)

// machineOfTwoDisks is a running machine whose UEFI variables QEMU puts the
// state into: savevm takes the first disk that can have one.
func machineOfTwoDisks(t *testing.T) *testqemu.Machine {
	t.Helper()
	dir := t.TempDir()
	firmware, err := os.ReadFile("/usr/share/seabios/bios-256k.bin")
	if err != nil {
		testtool.Missing(t, err.Error())
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(path("fw"), firmware, 0o600); err != nil {
		t.Fatal(err)
	}
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path("vars.qcow2"), "64K")
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path("disk.qcow2"), "8M")
	testtool.Run(t, "qemu-io", "-c", "write -q -P 7 1M 1M", path("disk.qcow2"))
	m := testqemu.Start(t, "-M", "q35", "-m", "16",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+path("fw"),
		"-drive", "if=pflash,unit=1,format=qcow2,file="+path("vars.qcow2"),
		"-drive", "if=none,id=d0,format=qcow2,file="+path("disk.qcow2"), "-device", "virtio-blk,drive=d0")
	m.Dir = dir
	return m
}

// TestRAMInAnotherDisk backs up the disk of a machine whose state savevm has put
// into another one: that is said, with the flag that takes it along, and no
// snapshot is called unneeded whose RAM no delta has.
func TestRAMInAnotherDisk(t *testing.T) {
	m := machineOfTwoDisks(t)
	path := func(name string) string { return filepath.Join(m.Dir, name) }
	for _, name := range []string{"sun", "mon", "tue"} {
		m.Human("savevm " + name)
		time.Sleep(50 * time.Millisecond)
	}
	m.Do("blockdev-snapshot-internal-sync", map[string]any{"device": "d0", "name": "live"})
	dir := path("backups")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	backup := func(want int, args ...string) string {
		t.Helper()
		code, _, stderr := run(t, append([]string{"backup"}, args...)...)
		if code != want {
			t.Fatalf("%q: exit %d: %s", args, code, stderr)
		}
		return stderr
	}
	says := func(stderr, want string, there bool) {
		t.Helper()
		if strings.Contains(stderr, want) != there {
			t.Errorf("%q is in the messages: %v, want %v:\n%s", want, !there, there, stderr)
		}
	}
	sun := path("disk.qcow2") + "@sun"
	for range 2 { // the second time there is nothing to do, and it is said again
		said := backup(0, sun, dir)
		says(said, "warning", true)
		says(said, fmt.Sprintf("It is in %s: --new-state %[1]s takes it along", path("vars.qcow2")+"@sun"), true)
	}
	said := backup(0, path("disk.qcow2")+"@mon", dir)
	said += backup(0, path("disk.qcow2")+"@tue", dir)
	says(said, "no longer needed", false)

	// With its RAM.
	said = backup(0, "--new-state", path("vars.qcow2")+"@sun", sun, dir)
	says(said, "warning", false)
	says(said, "RAM is stored in full", true)
	said = backup(0, "--new-state", path("vars.qcow2")+"@sun", sun, dir)
	says(said, "already", true)
	said = backup(0, "--new-state", path("vars.qcow2")+"@mon", path("disk.qcow2")+"@mon", dir)
	says(said, "RAM is stored in full", false)
	said = backup(0, "--new-state", path("vars.qcow2")+"@tue", path("disk.qcow2")+"@tue", dir)
	says(said, "no longer needed: "+sun, true)
	said = backup(2, "--new-state", path("vars.qcow2")+"@sun", path("disk.qcow2")+"@live", dir)
	says(said, "the RAM of another instant", true)

	// What was saved with RAM in the delta is what the snapshot has.
	list, err := filepath.Glob(filepath.Join(dir, "disk-*.cbt"))
	if err != nil || len(list) != 6 {
		t.Fatalf("%q, %v", list, err)
	}
	with := 0
	for _, delta := range list {
		code, out, stderr := run(t, "info", delta)
		if code != 0 {
			t.Fatal(stderr)
		}
		if !strings.Contains(out, "ram/pc.ram") {
			continue
		}
		with++
		for _, name := range []string{"sun", "mon", "tue"} {
			want := path(name + ".want")
			if _, err := os.Stat(want); err != nil {
				if code, _, stderr := run(t, "diff", "--full", "--ram", "only", path("vars.qcow2")+"@"+name, "-o", path(name+".cbt")); code != 0 {
					t.Fatal(stderr)
				}
				if code, _, stderr := run(t, "restore", path(name+".cbt"), "--state", want); code != 0 {
					t.Fatal(stderr)
				}
			}
		}
		got := path("got")
		os.Remove(got)
		if code, _, stderr := run(t, "restore", delta, "--state", got); code != 0 {
			t.Fatal(stderr)
		}
		same := 0
		for _, name := range []string{"sun", "mon", "tue"} {
			if hashFile(t, got) == hashFile(t, path(name+".want")) {
				same++
			}
		}
		if same != 1 {
			t.Errorf("%s: its RAM is that of %d snapshots", delta, same)
		}
	}
	if with != 3 {
		t.Errorf("%d deltas with RAM, want 3", with)
	}

	// Of a snapshot of the disks alone nothing is found: words, or --ram no.
	says(backup(0, path("disk.qcow2")+"@live", dir), "--new-state FILE@live takes it along; if not, --ram no says so", true)
	says(backup(0, "--ram", "no", path("disk.qcow2")+"@live", dir), "warning", false)
	// Both disks together need no flag.
	both := path("both")
	if err := os.Mkdir(both, 0o700); err != nil {
		t.Fatal(err)
	}
	says(backup(0, "--name", "vm", "disk="+sun, "vars="+path("vars.qcow2")+"@sun", both), "warning", false)
	// diff says it too.
	code, _, stderr := run(t, "diff", "--full", sun, "-o", path("x.cbt"))
	if code != 0 {
		t.Fatal(stderr)
	}
	says(stderr, "warning: ", true)
	if code, _, stderr = run(t, "diff", "--full", sun, "--new-state", path("vars.qcow2")+"@sun", "-o", path("y.cbt")); code != 0 {
		t.Fatal(stderr)
	}
	says(stderr, "warning", false)
}
