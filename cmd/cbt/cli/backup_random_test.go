package cli

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/testtool"
)

// nights is a machine that is backed up while all kinds of things happen to
// its image and to the directory.
type nights struct {
	t     *testing.T
	r     *rand.Rand
	dir   string
	disk  string
	store string
	names []string          // of snapshots in the image
	sums  map[string]string // of what each delta restores to
	log   []string
	n     int
}

// TestBackupWhateverHappens: each backup succeeds and gives, then and later, the
// bytes that the image had.
func TestBackupWhateverHappens(t *testing.T) {
	testtool.Need(t, "qemu-img")
	testtool.Need(t, "qemu-io")
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := t.TempDir()
			n := &nights{t: t, r: rand.New(rand.NewPCG(seed, 5)), dir: dir, disk: filepath.Join(dir, "disk.qcow2"), store: filepath.Join(dir, "b"), sums: map[string]string{}}
			defer func() {
				if t.Failed() {
					t.Log(strings.Join(n.log, "\n"))
				}
			}()
			if err := os.Mkdir(n.store, 0o700); err != nil {
				t.Fatal(err)
			}
			n.tool("qemu-img", "create", "-q", "-f", "qcow2", n.disk, "6M")
			for range 14 {
				for range n.r.IntN(4) {
					n.happens()
				}
				n.backup()
			}
			n.restoreAll()
		})
	}
}

func (n *nights) tool(name string, args ...string) {
	n.t.Helper()
	n.log = append(n.log, name+" "+strings.Join(args, " "))
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

func (n *nights) write() {
	n.tool("qemu-io", "-f", "qcow2", "-d", "unmap",
		"-c", fmt.Sprintf("write -q -P %d %dk %dk", n.r.IntN(256), 4*n.r.IntN(1400), 4+4*n.r.IntN(20)),
		"-c", fmt.Sprintf("discard -q %dk 64k", 64*n.r.IntN(90)), n.disk)
}

// happens does one thing to the image or to the directory.
func (n *nights) happens() {
	some := func() (string, bool) {
		if len(n.names) == 0 {
			return "", false
		}
		return n.names[n.r.IntN(len(n.names))], true
	}
	moved := filepath.Join(n.dir, fmt.Sprintf("old-%d.qcow2", n.n))
	n.n++
	switch n.r.IntN(9) {
	case 0: // a snapshot is deleted
		if name, ok := some(); ok {
			n.tool("qemu-img", "snapshot", "-d", name, n.disk)
			n.forget(name)
		}
	case 1: // rolled back
		if name, ok := some(); ok {
			n.tool("qemu-img", "snapshot", "-a", name, n.disk)
		}
	case 2: // another image of the same name
		n.tool("mv", n.disk, moved)
		n.tool("qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", moved, n.disk)
		n.names = nil
	case 3: // an external snapshot
		n.tool("mv", n.disk, moved)
		n.tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", filepath.Base(moved), "-F", "qcow2", n.disk)
		n.names = nil
	case 4: // what it stands on is written to: its snapshots read otherwise now
		if out, _ := exec.Command("qemu-img", "info", n.disk).Output(); strings.Contains(string(out), "backing file:") && len(n.names) == 0 {
			n.tool("qemu-img", "commit", "-q", n.disk)
		}
	case 5: // it grows
		n.tool("qemu-img", "resize", "-q", n.disk, "+64k")
	case 6: // a delta is lost
		if files, _ := filepath.Glob(filepath.Join(n.store, "*.cbt")); len(files) > 0 {
			n.tool("rm", files[n.r.IntN(len(files))])
		}
	case 7: // something that is no delta
		if err := os.WriteFile(filepath.Join(n.store, fmt.Sprintf("disk-20300101T000000Z-%012d.cbt", n.n)), []byte("none"), 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	n.write()
}

func (n *nights) forget(name string) {
	for i, s := range n.names {
		if s == name {
			n.names = append(n.names[:i], n.names[i+1:]...)
			return
		}
	}
}

func (n *nights) backup() {
	name := fmt.Sprintf("n%d", n.n)
	n.n++
	n.tool("qemu-img", "snapshot", "-c", name, n.disk)
	n.names = append(n.names, name)
	raw := filepath.Join(n.dir, "want.raw")
	n.tool("qemu-img", "convert", "-f", "qcow2", "-O", "raw", n.disk, raw)
	want := n.hash(raw)
	args := []string{"backup", "--json", "--name", "disk", n.disk + "@" + name, n.store}
	switch n.r.IntN(5) {
	case 0:
		args = append(args, "--full-every", "3")
	case 1:
		args = append(args, "--spot-check", "off")
	}
	code, stdout, stderr := run(n.t, args...)
	n.log = append(n.log, "cbt "+strings.Join(args, " "), stderr)
	if code != 0 {
		n.t.Fatalf("exit %d: %s", code, stderr)
	}
	var done struct {
		File    string
		New     bool
		Useless []struct{ Snapshot, Command string } `json:"no_longer_needed"`
	}
	if err := json.Unmarshal([]byte(stdout), &done); err != nil || !done.New {
		n.t.Fatalf("%v: %s", err, stdout)
	}
	n.sums[done.File] = want
	n.restore(done.File)
	for _, u := range done.Useless {
		if n.r.IntN(2) == 0 {
			n.tool("sh", "-c", u.Command)
			n.forget(u.Snapshot[strings.LastIndex(u.Snapshot, "@")+1:])
		}
		if strings.HasSuffix(u.Snapshot, "@"+name) {
			n.t.Fatalf("%s is needed by the next run", u.Snapshot)
		}
	}
}

func (n *nights) hash(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

func (n *nights) restore(file string) {
	raw := filepath.Join(n.dir, "restored.raw")
	if code, _, stderr := run(n.t, "restore", "--overwrite", file, raw); code != 0 {
		n.t.Fatalf("restore %s: exit %d: %s", file, code, stderr)
	}
	if n.hash(raw) != n.sums[file] {
		n.t.Fatalf("%s restores to something else", file)
	}
}

// restoreAll: what was not lost is still what it was, and says so if what it
// builds on is.
func (n *nights) restoreAll() {
	others, _ := filepath.Glob(filepath.Join(n.store, "disk-2030*"))
	for _, name := range others {
		n.tool("rm", name)
	}
	if code, stdout, stderr := run(n.t, "verify", n.store); code != fail.Done && code != fail.WrongBaseCode {
		n.t.Fatalf("verify: exit %d: %s%s", code, stdout, stderr)
	}
	there := 0
	for file := range n.sums {
		if !infile.Exists(file) {
			continue
		}
		if code, _, _ := run(n.t, "cat", file); code != fail.WrongBaseCode {
			n.restore(file)
			there++
		}
	}
	if there == 0 {
		n.t.Error("nothing is left")
	}
}
