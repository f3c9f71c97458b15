package cli

import (
	"os"
	"strings"
	"testing"
	"time"

	"cbt/internal/infile"
	"cbt/internal/store"
	"cbt/internal/testtool"
	"cbt/qcow2"
)

func pointOf(t *testing.T, ref string, opt openerOptions) string {
	t.Helper()
	return mustOpen(t, newTestOpener(t, opt), ref, refOptions{}).Point
}

func TestPoints(t *testing.T) {
	testtool.Need(t, "qemu-img")
	t.Chdir(t.TempDir())
	qemuImg := func(args ...string) { t.Helper(); testtool.Run(t, "qemu-img", args...) }
	qemuImg("create", "-q", "-f", "raw", "base.raw", "1M")
	qemuImg("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "a.qcow2")
	qemuImg("snapshot", "-c", "daily", "a.qcow2")
	testtool.Run(t, "cp", "-p", "a.qcow2", "b.qcow2")

	a := pointOf(t, "a.qcow2@daily", openerOptions{})
	if !strings.HasPrefix(a, "qcow2:") || len(a) != len("qcow2:")+64+1+64 {
		t.Fatalf("point %q", a)
	}
	same := func(why, ref string) {
		t.Helper()
		if p := pointOf(t, ref, openerOptions{}); p != a {
			t.Errorf("%s: %s, want %s", why, p, a)
		}
	}
	other := func(why, ref string) string {
		t.Helper()
		p := pointOf(t, ref, openerOptions{})
		if p == a || p == "" {
			t.Errorf("%s: %q", why, p)
		}
		return p
	}
	other("the copy of the image, another disk with the same table", "b.qcow2@daily")
	same("asked again", "./a.qcow2@daily")
	if err := os.Rename("a.qcow2", "renamed"); err != nil {
		t.Fatal(err)
	}
	same("renamed", "renamed@daily")
	qemuImg("snapshot", "-c", "later", "renamed")
	same("a later snapshot", "renamed@daily")
	other("the later snapshot", "renamed@later")
	testtool.Run(t, "qemu-io", "-c", "write 0 64k", "renamed")
	same("the active state written", "renamed@daily")
	qemuImg("snapshot", "-d", "later", "renamed")
	same("the later one deleted", "renamed@daily")

	now := time.Now()
	if err := os.Chtimes("base.raw", now, now); err != nil {
		t.Fatal(err)
	}
	a = other("the backing file written", "renamed@daily")
	qemuImg("snapshot", "-d", "daily", "renamed")
	qemuImg("snapshot", "-c", "daily", "renamed")
	a = other("deleted and made again", "renamed@daily")
	if err := os.Rename("base.raw", "base.old"); err != nil {
		t.Fatal(err)
	}
	testtool.Run(t, "cp", "-p", "base.old", "base.raw")
	other("another backing file with the same name, size and mtime", "renamed@daily")

	if p := pointOf(t, "renamed", openerOptions{}); p != "" {
		t.Errorf("an active state has the point %s", p)
	}
	frozen := pointOf(t, "renamed", openerOptions{Frozen: true})
	if frozen == "" || frozen != pointOf(t, "renamed", openerOptions{Frozen: true}) {
		t.Errorf("--frozen: %q", frozen)
	}
	overwrite(t, "renamed")
	if p := pointOf(t, "renamed", openerOptions{Frozen: true}); p == frozen {
		t.Error("--frozen: a write does not end the point")
	}
}

func TestRawPoints(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("disk.raw", make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	a := pointOf(t, "disk.raw", openerOptions{})
	if !strings.HasPrefix(a, "raw:") {
		t.Fatalf("point %q", a)
	}
	if err := os.Rename("disk.raw", "other.raw"); err != nil {
		t.Fatal(err)
	}
	if p := pointOf(t, "other.raw", openerOptions{}); !store.MayBe(p, a) {
		t.Errorf("renamed: %s, was %s", p, a)
	}
	testtool.Run(t, "cp", "-p", "other.raw", "copy.raw")
	if p := pointOf(t, "copy.raw", openerOptions{}); p == a {
		t.Error("a copy has the point of its original")
	}
	overwrite(t, "other.raw")
	if p := pointOf(t, "other.raw", openerOptions{}); p == a {
		t.Error("a write does not end the point")
	}
	a = pointOf(t, "other.raw", openerOptions{})
	st, err := os.Stat("other.raw")
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, "other.raw")
	if err := os.Chtimes("other.raw", time.Time{}, st.ModTime()); err != nil {
		t.Fatal(err)
	}
	if p := pointOf(t, "other.raw", openerOptions{}); p == a || !store.MayBe(p, a) {
		t.Errorf("written to, and its time put back: %s, was %s", p, a)
	}
	if p := rawPoint(infile.Stat{Block: true, Size: 4096}); p != "" {
		t.Errorf("a device has the point %s", p)
	}
}

// Each thing that identifies a snapshot is part of its point.
func TestSnapshotPointCoversAll(t *testing.T) {
	old := time.Unix(1e9, 5)
	snap := qcow2.Snapshot{ID: "1", Name: "daily", Date: old, VMClock: 1, L1Offset: 0x10000, L1Entries: 1, DiskSize: 4096, VMStateSize: 7}
	stat := infile.Stat{Dev: 1, Fsid: 7, Ino: 2, Size: 3, Mtime: old, Btime: old}
	img := func(s infile.Stat) *image { return &image{file: &file{Input: &infile.Input{Info: s}}} }
	over := func(name string, base infile.Stat) *image {
		return &image{file: &file{Input: &infile.Input{Info: stat}}, backingName: name, backing: &image{file: &file{Input: &infile.Input{Info: base}}, format: formatRaw}}
	}
	points := map[string]string{}
	add := func(why string, i *image, s qcow2.Snapshot) {
		t.Helper()
		p := snapshotPoint(i, &s)
		if p == "" {
			t.Fatalf("%s: no point", why)
		}
		for other, q := range points {
			if p == q {
				t.Errorf("%s has the point of %s", why, other)
			}
		}
		points[why] = p
	}
	vary := func(why string, change func(*qcow2.Snapshot)) {
		t.Helper()
		s := snap
		change(&s)
		add(why, img(stat), s)
	}
	add("the snapshot", img(stat), snap)
	vary("id", func(s *qcow2.Snapshot) { s.ID = "2" })
	vary("name", func(s *qcow2.Snapshot) { s.Name = "weekly" })
	vary("id and name run together", func(s *qcow2.Snapshot) { s.ID, s.Name = "1d", "aily" })
	vary("date", func(s *qcow2.Snapshot) { s.Date = old.Add(time.Second) })
	vary("date, ns", func(s *qcow2.Snapshot) { s.Date = old.Add(1) })
	vary("clock", func(s *qcow2.Snapshot) { s.VMClock++ })
	vary("L1 offset", func(s *qcow2.Snapshot) { s.L1Offset += 0x10000 })
	vary("L1 entries", func(s *qcow2.Snapshot) { s.L1Entries++ })
	vary("disk size", func(s *qcow2.Snapshot) { s.DiskSize += 512 })
	vary("state size", func(s *qcow2.Snapshot) { s.VMStateSize++ })

	inode, born, noBirth := stat, stat, stat
	inode.Ino++
	born.Btime = old.Add(1)
	noBirth.Btime = time.Time{}
	add("inode", img(inode), snap)
	add("birth", img(born), snap)
	add("no birth time", img(noBirth), snap)
	noBirth.Dev++
	add("no birth time, other device", img(noBirth), snap)

	base := infile.Stat{Dev: 1, Fsid: 7, Ino: 9, Size: 4096, Mtime: old, Btime: old}
	add("a backing file", over("base", base), snap)
	add("its name", over("base2", base), snap)
	written, grown, replaced := base, base, base
	written.Mtime = old.Add(1)
	grown.Size++
	replaced.Ino++
	add("written", over("base", written), snap)
	add("grown", over("base", grown), snap)
	add("replaced", over("base", replaced), snap)
	touched := base
	base.Ctime, touched.Ctime = old, old.Add(1)
	add("with a ctime", over("base", base), snap)
	add("another ctime", over("base", touched), snap)
	if !store.MayBe(points["with a ctime"], points["another ctime"]) || !store.MayBe(points["with a ctime"], points["a backing file"]) || store.MayBe(points["with a ctime"], points["written"]) {
		t.Error("what only the ctime tells apart")
	}

	// Inode and birth time may be the same on two file systems.
	elsewhere := stat
	elsewhere.Fsid++
	add("on another file system", img(elsewhere), snap)
	nameless, other := stat, stat
	nameless.Fsid, other.Fsid = 0, 0
	other.Dev++
	add("on a file system without an ID", img(nameless), snap)
	add("on another one without", img(other), snap)

	// Where both are known the device number may change, with the next boot.
	moved := stat
	moved.Dev++
	if p := snapshotPoint(img(moved), &snap); p != points["the snapshot"] {
		t.Error("another device number changes the point")
	}
	base.Block = true
	if p := snapshotPoint(over("base", base), &snap); p != "" {
		t.Errorf("over a device: %s", p)
	}
}

// A backing image whose data lie in a file of their own is written to without
// a change of the image file.
func TestPointOfADataFileBelow(t *testing.T) {
	testtool.Need(t, "qemu-img")
	t.Chdir(t.TempDir())
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=base.data,preallocation=metadata", "base.qcow2", "1M")
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "a.qcow2")
	testtool.Run(t, "qemu-img", "snapshot", "-c", "daily", "a.qcow2")
	before := pointOf(t, "a.qcow2@daily", openerOptions{})
	active := pointOf(t, "a.qcow2", openerOptions{Frozen: true})
	f, err := os.OpenFile("base.data", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * infile.FineTick)
	if _, err := f.WriteAt([]byte("new"), 4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if after := pointOf(t, "a.qcow2@daily", openerOptions{}); after == before || after == "" {
		t.Errorf("the snapshot is at %q, was at %q", after, before)
	}
	if after := pointOf(t, "a.qcow2", openerOptions{Frozen: true}); after == active || after == "" {
		t.Errorf("the active state is at %q, was at %q", after, active)
	}
}
