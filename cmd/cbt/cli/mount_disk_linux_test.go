package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cbt/internal/fail"
	"cbt/internal/sample"
	"cbt/internal/testtool"
)

// dirtyDisk is a disk with a partition whose ext4 has files that are only in its journal,
// as a machine leaves it that lost its power, and a raw file of the same bytes.
func dirtyDisk(t *testing.T) (image, raw string) {
	t.Helper()
	dir := t.TempDir()
	fsys, raw, image := filepath.Join(dir, "fs.raw"), filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2")
	if err := os.WriteFile(fsys, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(fsys, 64<<20); err != nil {
		t.Fatal(err)
	}
	testtool.Run(t, "mkfs.ext4", "-q", fsys)
	at := testtool.Mount(t, "ext4", testtool.Loop(t, fsys), "data=journal")
	for i := range 50 {
		if err := os.WriteFile(filepath.Join(at, fmt.Sprint("file", i)), []byte(fmt.Sprint("content ", i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(filepath.Join(at, "file49"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil { // brings the journal to the disk, and no more
		t.Fatal(err)
	}
	f.Close()
	testtool.Run(t, "cp", "--sparse=always", fsys, raw+".fs")
	if out := testtool.Run(t, "dumpe2fs", "-h", raw+".fs"); !strings.Contains(out, "needs_recovery") {
		t.Fatal("the journal is empty: ", out)
	}
	testtool.Run(t, "sh", "-c", fmt.Sprintf("truncate -s 72M %[1]s && echo start=2048,size=131072,type=83 | sfdisk -q %[1]s && dd if=%[1]s.fs of=%[1]s bs=1M seek=1 conv=notrunc,sparse status=none", raw))
	testtool.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
	testtool.Run(t, "qemu-img", "snapshot", "-c", "crashed", image)
	return image, raw
}

// TestMountJournal: a file system whose journal has to be replayed is mounted from an
// overlay, works, is whole after it, and the source stays what it is.
func TestMountJournal(t *testing.T) {
	testtool.Need(t, "sfdisk")
	image, raw := dirtyDisk(t)
	before := hashFiles(t, filepath.Dir(image))
	m := mountFor(t, "--overlay", "tmp", image)
	part := m.path("snapshots/crashed/partitions/1.raw")

	t.Run("kernel", func(t *testing.T) {
		at := testtool.Mount(t, "ext4", testtool.Loop(t, part))
		for i := range 50 {
			b, err := os.ReadFile(filepath.Join(at, fmt.Sprint("file", i)))
			if err != nil || string(b) != fmt.Sprint("content ", i) {
				t.Errorf("file%d: %q, %v", i, b, err)
			}
		}
		if err := os.WriteFile(filepath.Join(at, "new"), []byte("written"), 0o600); err != nil {
			t.Error(err)
		}
		testtool.Run(t, "sync", "-f", at)
		testtool.Run(t, "fstrim", at)
	})
	testtool.Run(t, "e2fsck", "-fn", part)

	// The disk shows what was written to its partition, and the other way round.
	disk, err := os.OpenFile(m.path("snapshots/crashed/disk.raw"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	p, q := make([]byte, 1<<20), make([]byte, 1<<20)
	f, err := os.OpenFile(part, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := int64(0); off < 64<<20; off += 1 << 20 {
		_, err1 := f.ReadAt(p, off)
		_, err2 := disk.ReadAt(q, off+1<<20)
		if err1 != nil || err2 != nil || !slices.Equal(p, q) {
			t.Fatalf("at %d: %v %v", off, err1, err2)
		}
	}
	if _, err := disk.WriteAt([]byte("by the disk"), 1<<20+5000); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(p[:11], 5000); err != nil || string(p[:11]) != "by the disk" {
		t.Errorf("the partition shows %q, %v", p[:11], err)
	}
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	// Nothing grows, and the other state is another disk.
	if _, err := f.WriteAt([]byte("x"), 64<<20); err == nil {
		t.Error("a partition grows")
	}
	if err := f.Truncate(1000); err == nil {
		t.Error("a partition is cut")
	}
	if hashFile(t, m.path("active/disk.raw")) != hashFile(t, raw) {
		t.Error("what is written to a snapshot shows in the active state")
	}
	if after := hashFiles(t, filepath.Dir(image)); after != before {
		t.Error("the source changed")
	}
}

// TestMountPartition: a partition is a file that the kernel mounts.
func TestMountPartition(t *testing.T) {
	dir := t.TempDir()
	raw, image := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2")
	tree := filepath.Join(dir, "tree")
	if err := os.MkdirAll(filepath.Join(tree, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "a/b/c"), []byte(strings.Repeat("deep", 100000)), 0o600); err != nil {
		t.Fatal(err)
	}
	testtool.Run(t, "sh", "-c", fmt.Sprintf(`set -e; cd %s; truncate -s 100M disk.raw
printf 'label: dos\nstart=2048,size=2048,type=83\nstart=8192,type=5\nstart=16384,size=65536,type=83\n' | sfdisk -q disk.raw
truncate -s 32M fs; mkfs.ext4 -q -d tree fs; dd if=fs of=disk.raw bs=1M seek=8 conv=notrunc,sparse status=none`, dir))
	testtool.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", raw, image)
	m := mountFor(t, image)
	entries, err := os.ReadDir(m.path("active/partitions"))
	if err != nil || len(entries) != 2 {
		t.Fatal(entries, err)
	}
	at := testtool.Mount(t, "ext4", testtool.Loop(t, m.path("active/partitions/5.raw"), "--read-only"), "ro")
	if hashFile(t, filepath.Join(at, "a/b/c")) != hashFile(t, filepath.Join(tree, "a/b/c")) {
		t.Error("a file inside is something else")
	}
}

// TestMountGuestVolumes: the volumes of a group on three disks, one of them a snapshot.
func TestMountGuestVolumes(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		if err := unpackSample(filepath.Join(sample.Dir(t), fmt.Sprintf("lvm/mixed-%d.img.gz", i)), filepath.Join(dir, fmt.Sprintf("%d.img", i))); err != nil {
			t.Fatal(err)
		}
	}
	image := filepath.Join(dir, "guest.qcow2")
	testtool.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", filepath.Join(dir, "0.img"), image)
	testtool.Run(t, "qemu-img", "snapshot", "-c", "monday", image)
	testtool.Run(t, "qemu-io", "-c", "write -q -P 0 0 4M", image)
	pvs := []string{"--pv", image + "@monday", "--pv", filepath.Join(dir, "1.img"), "--pv", filepath.Join(dir, "2.img")}
	m := mountFor(t, "--together", "--overlay", "tmp", image+"@monday", filepath.Join(dir, "1.img"), filepath.Join(dir, "2.img"))
	files, err := filepath.Glob(m.path("active/lvm/mixed/*.raw"))
	if err != nil || len(files) < 5 {
		t.Fatal(files, err, m.stderr())
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".raw")
		want := filepath.Join(t.TempDir(), "want")
		o := newTestOpener(t, openerOptions{volumeOptions: volumeOptions{PVs: []string{pvs[1], pvs[3], pvs[5]}}})
		src := mustOpen(t, o, "lvm:mixed/"+name, refOptions{})
		b := make([]byte, src.View.Size())
		if _, err := src.View.ReadAt(b, 0); err != nil && src.View.Size() > 0 {
			t.Logf("%s: %v", name, err)
		}
		if err := os.WriteFile(want, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if hashFile(t, f) != hashFile(t, want) {
			t.Errorf("%s is not what --pv reads", name)
		}
	}
	// What is written to a volume stays its own.
	v, err := os.OpenFile(files[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	disk := m.path("active/1.raw")
	before := hashFile(t, disk)
	p := make([]byte, 5)
	if _, err := v.WriteAt([]byte("mine!"), 4096); err != nil {
		t.Fatal(err)
	}
	if _, err := v.ReadAt(p, 4096); err != nil || string(p) != "mine!" {
		t.Errorf("%q, %v", p, err)
	}
	if hashFile(t, disk) != before {
		t.Error("the disk changed")
	}
}

// TestMountPoints: chains that shrink, grow and shrink, of two disks, with a branch and a
// delta without its parents.
func TestMountPoints(t *testing.T) {
	dir := t.TempDir()
	sh := func(script string) {
		t.Helper()
		testtool.Run(t, "sh", "-c", "set -e; cd "+dir+"\n"+script)
	}
	sh(`write() { f=$1; shift; qemu-io -f qcow2 -d unmap "$@" $f.qcow2 >/dev/null; }
night() { for d in a b; do qemu-img snapshot -c $1 $d.qcow2; qemu-img convert -f qcow2 -O raw $d.qcow2 $1.$d; done; }
for d in a b; do qemu-img create -q -f qcow2 $d.qcow2 10000384; done
write a -c 'write -P 1 0 10000384'; write b -c 'write -P 2 1M 3M'; night 1
qemu-img resize -q --shrink a.qcow2 5M; write a -c 'write -P 4 4M 4k'; night 2
qemu-img resize -q a.qcow2 12M; write a -c 'write -P 5 11M 64k'; night 3
qemu-img resize -q --shrink a.qcow2 3000320; write b -c 'write -z 2M 1M'; night 4
mkdir deltas`)
	ref := func(disk, night string) string { return disk + "=" + filepath.Join(dir, disk+".qcow2@"+night) }
	for _, d := range [][2]string{{"", "1"}, {"1", "2"}, {"2", "3"}, {"3", "4"}, {"1", "4"}} {
		args := []string{"diff", "-q", "-o", filepath.Join(dir, "deltas", d[0]+"to"+d[1]+".cbt")}
		for _, disk := range []string{"a", "b"} {
			args = append(args, "--new", ref(disk, d[1]))
			if d[0] != "" {
				args = append(args, "--old", ref(disk, d[0]))
			}
		}
		if code, _, stderr := run(t, args...); code != 0 {
			t.Fatal(args, stderr)
		}
	}
	lost := filepath.Join(dir, "deltas", "lost.cbt")
	if code, _, stderr := run(t, "diff", "-q", "-o", lost, filepath.Join(dir, "a.qcow2@2"), filepath.Join(dir, "a.qcow2@3")); code != 0 {
		t.Fatal(stderr)
	}
	before := hashFiles(t, filepath.Join(dir, "deltas"))
	check := func(m *mountTest, name, night string) {
		t.Helper()
		for _, disk := range []string{"a", "b"} {
			if hashFile(t, m.path("points/"+name+"/"+disk+".raw")) != hashFile(t, filepath.Join(dir, night+"."+disk)) {
				t.Errorf("%s: disk %s is something else", name, disk)
			}
		}
	}
	m := mountFor(t, filepath.Join(dir, "deltas"))
	entries, err := os.ReadDir(m.path("points"))
	if err != nil || len(entries) != 5 {
		t.Error(entries, err)
	}
	for _, d := range entries {
		check(m, d.Name(), d.Name()[len(d.Name())-1:])
	}
	if s := m.stderr(); !strings.Contains(s, "lost.cbt: no chain leads to disk/0") {
		t.Errorf("says %q", s)
	}
	one := mountFor(t, filepath.Join(dir, "deltas", "3to4.cbt"))
	check(one, "3to4", "4")
	if code, _, stderr := run(t, "mount", "--foreground", lost, t.TempDir()); code != fail.WrongBaseCode {
		t.Errorf("a delta without its parents: exit %d: %s", code, stderr)
	}
	// What is written to a point shows in no other.
	w := mountFor(t, "--overlay", "tmp", filepath.Join(dir, "deltas"))
	for _, p := range []string{"2to3", "to1"} {
		f, err := os.OpenFile(w.path("points/"+p+"/a.raw"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte(p), 77); err != nil {
			t.Error(err)
		}
		f.Close()
	}
	check(w, "1to2", "2")
	for _, p := range []string{"2to3", "to1"} {
		b, err := os.ReadFile(w.path("points/" + p + "/a.raw"))
		if err != nil || string(b[77:77+len(p)]) != p {
			t.Errorf("%s: what was written is gone: %v", p, err)
		}
	}
	if after := hashFiles(t, filepath.Join(dir, "deltas")); after != before {
		t.Error("a delta changed")
	}
}
