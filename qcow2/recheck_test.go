package qcow2

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"cbt/internal/testimg"
	"cbt/internal/testtool"
	"cbt/sparse"
)

// TestRecheckWhileSnapshotsComeAndGo: a snapshot counts as unchanged as long as it exists. If it
// was deleted it does not, even if one of the same name and ID took its place.
func TestRecheckWhileSnapshotsComeAndGo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "i.qcow2")
	qemuImg := func(args ...string) { t.Helper(); testtool.Run(t, "qemu-img", append(args, path)...) }
	testtool.Run(t, "qemu-img", "create", "-f", "qcow2", path, "10M")
	qemuImg("snapshot", "-c", "one")
	qemuImg("snapshot", "-c", "two")
	img := mustOpen(t, path)
	one, two, active := mustSnapshot(t, img, 0), mustSnapshot(t, img, 1), img.Active()
	check := func(what string, v *View, same bool) {
		t.Helper()
		if err := img.Recheck(v); same && err != nil || !same && !errors.Is(err, sparse.ErrChanged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, v := range []*View{one, two, active} {
		check("nothing happened", v, true)
	}
	qemuImg("snapshot", "-c", "three")
	check("another snapshot", one, true)
	check("another snapshot", active, false)
	testtool.Run(t, "qemu-io", "-c", "write 0 1M", path)
	check("a write", one, true)
	qemuImg("snapshot", "-d", "one")
	check("deleted", one, false)
	check("another one deleted", two, true)
	for _, name := range []string{"two", "three"} {
		qemuImg("snapshot", "-d", name)
	}
	qemuImg("snapshot", "-c", "one")
	if now := mustOpen(t, path).Snapshots(); len(now) != 1 || now[0].ID != "1" || now[0].Name != "one" {
		t.Errorf("this QEMU does not use IDs again: %+v", now)
	}
	check("back again", one, false)
	if err := mustOpen(t, path).Recheck(one); err == nil {
		t.Error("a view of another image")
	}
}

func TestRecheck(t *testing.T) {
	q := testimg.NewQcow2(testimg.Qcow2Options{Size: 1 << 20, Backing: "b", BackingFormat: "raw"})
	q.Write(0, []byte("x"))
	q.Snapshot("1", "one")
	q.Write(1<<16, []byte("y"))
	sound := q.Bytes()
	table := int64(be.Uint64(sound[64:]))
	l1 := int64(be.Uint64(sound[table:]))
	for _, c := range []struct {
		name             string
		patch            patch
		snapshot, active bool // still as they were
	}{
		{"nothing", patch{}, true, true},
		{"magic", patch{0, []byte{0}}, false, false},
		{"dirty bit", u64(72, 1), true, false},
		{"compatible bits", u64(80, 1), true, false},
		{"size", u64(24, 1<<19), true, false},
		{"backing file", patch{int64(be.Uint64(sound[8:])), []byte("c")}, false, false},
		{"backing format", patch{120, []byte("RAW")}, false, true}, // says what the backing file, which is open, was
		{"id", patch{table + 64, []byte("2")}, false, true},
		{"name", patch{table + 65, []byte("O")}, false, true},
		{"date", u32(table+20, 6), false, true},
		{"clock", u64(table+24, 6), false, true},
		{"machine state", u64(table+40, 6), false, true},
		{"disk size", u64(table+48, 6), false, true},
		{"L1 of the snapshot", u64(l1, be.Uint64(sound[l1:])+1<<16), false, true},
		{"COPIED in the L1 of the snapshot", u64(l1, be.Uint64(sound[l1:])|1<<63), true, true},
		{"L1 of the active state", u64(q.L1(0), be.Uint64(sound[q.L1(0):])+1<<16), true, false},
	} {
		b := bytes.Clone(sound)
		img, err := openBytes(b, Options{Backing: anyBacking})
		if err != nil {
			t.Fatal(err)
		}
		one := mustSnapshot(t, img, 0)
		copy(b[c.patch.at:], c.patch.b)
		if err := img.Recheck(one); (err == nil) != c.snapshot || err != nil && !errors.Is(err, sparse.ErrChanged) {
			t.Errorf("%s: snapshot: %v", c.name, err)
		}
		if err := img.Recheck(img.Active()); (err == nil) != c.active || err != nil && !errors.Is(err, sparse.ErrChanged) {
			t.Errorf("%s: active: %v", c.name, err)
		}
	}
}
