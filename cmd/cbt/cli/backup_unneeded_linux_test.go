package cli

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cbt/internal/testqemu"
	"cbt/internal/testtool"
)

// What backup says of snapshots that are no longer needed, of an image that a
// machine has open, is done by that machine as it was printed.
func TestUnneededOfRunningMachine(t *testing.T) {
	for _, c := range []struct {
		name  string
		args  string // %s is the image
		qmp   string // the command that is printed
		virsh bool
	}{
		{"drive with an id", "-drive file=%s,format=qcow2,if=virtio,id=d0", "blockdev-snapshot-delete-internal-sync", false},
		{"blockdev", `-blockdev driver=qcow2,node-name=top,file.driver=file,file.filename=%s -device virtio-blk-pci,drive=top`, "blockdev-snapshot-delete-internal-sync", false},
		{"drive without an id", "-drive file=%s,format=qcow2,if=virtio", "human-monitor-command", false},
		{"as libvirt does", `-name guest=vm1,debug-threads=on -chardev socket,id=charmonitor,path=mon,server=on,wait=off -mon chardev=charmonitor,id=monitor,mode=control ` +
			`-blockdev {"driver":"file","filename":"%s","node-name":"libvirt-1-storage"} -blockdev {"node-name":"libvirt-1-format","driver":"qcow2","file":"libvirt-1-storage"} ` +
			`-device virtio-blk-pci,drive=libvirt-1-format`, "blockdev-snapshot-delete-internal-sync", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			image, backups := filepath.Join(dir, "a,b.qcow2"), t.TempDir()
			testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", image, "8M")
			names := []string{"mon", `it's "so" \ here`, "wed"}
			if c.virsh {
				names[1] = "it's so"
			}
			written := image
			if !strings.Contains(c.args, `{`) {
				written = strings.ReplaceAll(image, ",", ",,")
			}
			for _, name := range names {
				testtool.Run(t, "qemu-img", "snapshot", "-c", name, image)
			}
			for _, name := range names[:2] {
				if code, _, stderr := run(t, "backup", "--snapshot", name, image, backups); code != 0 {
					t.Fatal(stderr)
				}
			}
			m := testqemu.Start(t, strings.Fields(fmt.Sprintf(c.args, written))...)
			code, stdout, stderr := run(t, "backup", "--json", image+"@wed", backups)
			if code != 0 {
				t.Fatal(stderr)
			}
			var said backedUp
			if err := json.Unmarshal([]byte(stdout), &said); err != nil {
				t.Fatal(err)
			}
			// What the directory has no delta of is deleted in the same way.
			elsewhere := t.TempDir()
			for _, name := range []string{"mon", "wed"} {
				if code, _, stderr := run(t, "backup", "--snapshot", name, image, elsewhere); code != 0 {
					t.Fatal(stderr)
				} else if name == "wed" && !lostIsDeleted(stderr, c.qmp) {
					t.Errorf("no command that deletes what is lost: %s", stderr)
				}
			}
			if len(said.NoLongerNeeded) != 2 {
				t.Fatalf("no longer needed: %+v", said.NoLongerNeeded)
			}
			if _, err := testtool.Try(t, "qemu-img", "snapshot", "-d", "mon", image); err == nil {
				t.Fatal("qemu-img deletes a snapshot of a running machine's image")
			}
			for i, u := range said.NoLongerNeeded {
				if u.Name != names[i] || u.ID != fmt.Sprint(i+1) || !u.Running || u.QMP == nil || u.QMP.Execute != c.qmp {
					t.Fatalf("snapshot %q: %+v, %v", names[i], u, u.QMP)
				}
				if strings.Contains(stderr, "qemu-img") || !strings.Contains(stderr, u.QMP.Execute) {
					t.Errorf("stderr: %s", stderr)
				}
				printed := u.QMP.String()
				if c.virsh { // what virsh gets from a shell
					out, err := exec.Command("sh", "-c", `virsh() { [ "$1 $2" = "qemu-monitor-command vm1" ] && printf %s "$3"; }; `+u.Command).Output()
					if err != nil {
						t.Fatalf("%s: %v", u.Command, err)
					}
					printed = string(out)
				} else if u.Command != "" {
					t.Errorf("a command for a shell: %s", u.Command)
				}
				if i == 0 && u.HMP != "" && c.qmp != "human-monitor-command" {
					m.Human(u.HMP)
				} else {
					var q struct {
						Execute   string
						Arguments map[string]any
					}
					if err := json.Unmarshal([]byte(printed), &q); err != nil {
						t.Fatal(err)
					}
					m.Do(q.Execute, q.Arguments)
				}
				var is struct{ Snapshots []struct{ Name string } }
				if err := json.Unmarshal([]byte(testtool.Run(t, "qemu-img", "info", "-U", "--output=json", image)), &is); err != nil {
					t.Fatal(err)
				}
				if slices.ContainsFunc(is.Snapshots, func(s struct{ Name string }) bool { return s.Name == names[i] }) || len(is.Snapshots) != 2-i {
					t.Errorf("after %s the image has %v", u.QMP, is.Snapshots)
				}
			}
			m.Kill()
			testtool.Run(t, "qemu-img", "snapshot", "-d", "wed", image)
		})
	}
}

// lostIsDeleted says whether a line of stderr names a lost snapshot and the command that deletes it.
func lostIsDeleted(stderr, command string) bool {
	for line := range strings.Lines(stderr) {
		if strings.Contains(line, "lost, pruned, or never written") && strings.Contains(line, command) {
			return true
		}
	}
	return false
}
