package testvm_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cbt/internal/testvm"
)

func TestMachine(t *testing.T) {
	dir := t.TempDir()
	pv, out := disk(t, dir, "pv,1.img", 256<<20), disk(t, dir, "out.img", 16<<20)
	local := filepath.Join(dir, "hello")
	if err := os.WriteFile(local, []byte("#!/bin/sh\necho hello \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	vm := testvm.Start(t, testvm.Options{
		Disks: []testvm.Disk{{Path: pv}, {Path: out}},
		Files: map[string]string{"/usr/local/bin/hello": local},
	})
	t.Logf("booted in %v", time.Since(start))

	t.Run("command", func(t *testing.T) {
		r := vm.Try(t, "echo out; echo err >&2; exit 3")
		if r.Exit != 3 || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" {
			t.Errorf("%v", r)
		}
		if got := vm.Run(t, "/usr/local/bin/hello you"); got != "hello you\n" {
			t.Errorf("an added file printed %q", got)
		}
		if _, err := vm.Exec(testvm.Command{Args: []string{"/no/such"}}); err == nil {
			t.Error("a program that is not there ran")
		}
	})
	t.Run("timeout", func(t *testing.T) {
		r, err := vm.Exec(testvm.Command{Script: "sleep 1000 | cat", Timeout: time.Second})
		if err != nil || !r.TimedOut || r.Exit != 128+9 {
			t.Errorf("%v, %v", r, err)
		}
	})
	t.Run("signal", func(t *testing.T) {
		p, err := vm.Start(testvm.Command{Script: "trap 'echo got it; exit 7' TERM; echo ready >/tmp/ready; while :; do sleep 0.1; done"})
		if err != nil {
			t.Fatal(err)
		}
		vm.Run(t, "until [ -e /tmp/ready ]; do sleep 0.1; done")
		if err := p.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if r, err := p.Wait(); err != nil || r.Exit != 7 || string(r.Stdout) != "got it\n" {
			t.Errorf("%v, %v", r, err)
		}
	})
	t.Run("copy", func(t *testing.T) {
		want := make([]byte, 3<<20+5)
		rand.New(rand.NewSource(1)).Read(want)
		start := time.Now()
		if err := vm.Put("/tmp/f", bytes.NewReader(want), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Logf("in: %v", time.Since(start))
		start = time.Now()
		var got bytes.Buffer
		if err := vm.Get(&got, "/tmp/f"); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%d of %d bytes came back, %v", got.Len(), len(want), err)
		}
		t.Logf("out: %v", time.Since(start))
		if got := vm.Run(t, "stat -c %a /tmp/f; sha256sum </tmp/f"); got != fmt.Sprintf("600\n%x  -\n", sha256.Sum256(want)) {
			t.Error(got)
		}
		if err := vm.Get(&got, "/no/such"); err == nil {
			t.Error("a file that is not there was copied")
		}
	})
	t.Run("device-mapper", func(t *testing.T) {
		vm.Run(t, `set -e
			pvcreate -q /dev/vda
			vgcreate -q vg /dev/vda
			lvcreate -q -y --type thin-pool -L 64M -c 64k -n pool vg
			lvcreate -q -y -V 100M --thin -n thin vg/pool
			lvcreate -q -y -s -n snap vg/thin
			lvcreate -q -y -L 16M -n thick vg
			lvcreate -q -y -s -L 4M -n old vg/thick
			lvcreate -q -y --type raid5 -i 2 -L 16M -n r5 vg /dev/vda 2>/dev/null || modprobe dm-raid
			mkfs.ext4 -q /dev/vg/thin && mount /dev/vg/thin /mnt && echo kept >/mnt/file`)
		targets := vm.Run(t, "dmsetup targets; cat /proc/filesystems")
		for _, name := range []string{"thin-pool", "snapshot", "raid", "ext4"} {
			if !strings.Contains(targets, name) {
				t.Errorf("no %s in\n%s", name, targets)
			}
		}
		vm.Run(t, "modprobe xfs && modprobe dm-mirror && dd if=/dev/zero of=/dev/vdb bs=1M count=1 && echo mark | dd of=/dev/vdb conv=notrunc")
	})
	if err := vm.Shutdown(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil || !bytes.HasPrefix(b, []byte("mark\n")) {
		t.Errorf("the disk begins with %q, %v", b[:8], err)
	}
	if b, err = os.ReadFile(pv); err != nil || !bytes.Contains(b[:1<<20], []byte("thin_pool")) {
		t.Errorf("no volume group's text in the disk, %v", err)
	}
	if _, err := vm.Exec(testvm.Command{Script: "true"}); err == nil {
		t.Error("a machine that is off ran a command")
	}
}

// disk is a new empty file.
func disk(t *testing.T, dir, name string, size int64) string {
	t.Helper()
	path := filepath.Join(dir, name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}
