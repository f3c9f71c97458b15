package testimg

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"cbt/internal/testtool"
)

// TestQcow2 has qemu-img judge what is built and read it.
func TestQcow2(t *testing.T) {
	for _, c := range []struct {
		name string
		opt  Qcow2Options
	}{
		{"version 3", Qcow2Options{Size: 3<<20 + 512}},
		{"refcounts first", Qcow2Options{Size: 3 << 20, Clusters: 40}},
		{"version 2", Qcow2Options{Version: 2, Size: 1 << 20}},
		{"small clusters", Qcow2Options{ClusterBits: 9, Size: 256 << 10}},
		{"extended", Qcow2Options{ClusterBits: 14, ExtendedL2: true, Size: 1 << 20}},
		{"8-bit refcounts", Qcow2Options{RefcountOrder: 3, Size: 1 << 20}},
		{"4-bit refcounts", Qcow2Options{RefcountOrder: 2, Size: 1 << 20}},
		{"64-bit refcounts", Qcow2Options{RefcountOrder: 6, ClusterBits: 9, Size: 1 << 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := NewQcow2(c.opt)
			cluster := int64(1) << q.opt.ClusterBits
			content := make([]byte, c.opt.Size)
			put := func(guest int64, fill byte, store func(int64, []byte) int64) {
				copy(content[guest:], bytes.Repeat([]byte{fill}, int(cluster)))
				store(guest, content[guest:min(guest+cluster, c.opt.Size)])
			}
			put(0, 1, q.Write)
			put(cluster, 2, q.Compress)
			put(2*cluster, 3, q.Compress)
			put((c.opt.Size-1)&^(cluster-1), 4, q.Write)
			q.Snapshot("1", "one")
			old := bytes.Clone(content)
			put(0, 5, q.Write)
			check(t, q, content, old)
		})
	}
}

func check(t *testing.T, q *Qcow2, active, snapshot []byte) {
	t.Helper()
	dir := t.TempDir()
	img, raw := filepath.Join(dir, "i.qcow2"), filepath.Join(dir, "i.raw")
	first := q.Bytes()
	if err := os.WriteFile(img, first, 0o600); err != nil {
		t.Fatal(err)
	}
	testtool.Run(t, "qemu-img", "check", img)
	for _, c := range []struct {
		args []string
		want []byte
	}{{nil, active}, {[]string{"-l", "one"}, snapshot}} {
		testtool.Run(t, "qemu-img", append(append([]string{"convert", "-O", "raw"}, c.args...), img, raw)...)
		got, err := os.ReadFile(raw)
		if err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%v: other content: %v", c.args, err)
		}
	}
}
