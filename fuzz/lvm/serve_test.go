package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/fuzz/tool"
	"cbt/internal/testvm"
)

// TestServe reads a served snapshot of a thin pool in use. The pool's metadata
// snapshot is not held meanwhile, and the snapshot cannot be deleted.
func TestServe(t *testing.T) {
	testvm.Need(t)
	dir := t.TempDir()
	bin, err := tool.Binary("", dir)
	if err != nil {
		t.Fatal(err)
	}
	client := filepath.Join(dir, "nbdread")
	if r := (tool.Cmd{Env: []string{"CGO_ENABLED=0"}}).Run("go", "build", "-o", client, "cbt/fuzz/nbdread"); r.Failed() {
		t.Fatal(r.Message())
	}
	pv := filepath.Join(dir, "pv.img")
	if f, err := os.Create(pv); err != nil || f.Truncate(256<<20) != nil || f.Close() != nil {
		t.Fatal(err)
	}
	vm := testvm.Start(t, testvm.Options{Disks: []testvm.Disk{{Path: pv}}, Files: map[string]string{"/bin/cbt": bin, "/bin/nbdread": client}})
	out := vm.Run(t, `set -e
		pvcreate -q /dev/vda && vgcreate -q vg /dev/vda
		lvcreate -q -y --type thin-pool -L 100M -c 64k -n pool vg
		lvcreate -q -y -V 64M --thin -n base vg/pool
		head -c 20000000 /dev/urandom >/dev/vg/base
		lvcreate -q -y -s -pr -kn -n s1 vg/base
		head -c 9000000 /dev/urandom >/dev/vg/base
		cbt serve lvm:vg/s1 --socket /tmp/sock >/tmp/ready 2>/tmp/errors & pid=$!
		until test -s /tmp/ready; do sleep 0.1; done
		cat /tmp/ready
		nbdread unix /tmp/sock vg-s1 >/tmp/s1
		cmp /tmp/s1 /dev/vg/s1 && echo same
		set -- $(dmsetup status vg-pool-tpool); echo held root $7
		lvremove -q -y vg/s1 2>&1 || echo in use
		kill -TERM $pid; code=0; wait $pid || code=$?
		echo exit $code
		cat /tmp/errors`)
	t.Log(out)
	for _, want := range []string{"nbd+unix:///vg-s1?socket=/tmp/sock\n", "\nsame\n", "\nheld root -\n", "\nin use\n", "\nexit 143\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("does not say %q", want)
		}
	}
}
