package qcow2

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"cbt/internal/testimg"
)

func TestSnapshotTable(t *testing.T) {
	q := testimg.NewQcow2(testimg.Qcow2Options{Size: 1<<20 + 512})
	q.Snapshot("1", "one")
	q.Resize(1 << 30)
	q.Snapshot("", "a name\nof two lines")
	q.Snapshot("17", "")
	b := q.Bytes()
	table := int64(be.Uint64(b[64:]))
	b = patched(b, u64(table+24, 12345), u64(table+40, 1<<40), u64(table+56, 77))
	img, err := openBytes(b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := img.Snapshots()
	if len(got) != 3 {
		t.Fatal(got)
	}
	l1 := int64(be.Uint64(b[table:]))
	want := Snapshot{ID: "1", Name: "one", Date: testimg.SnapshotDate(0), VMClock: 12345, VMStateSize: 1 << 40,
		DiskSize: 1<<20 + 512, L1Offset: l1, L1Entries: 1, ICount: 77, Offset: table}
	if got[0] != want {
		t.Errorf("got  %+v\nwant %+v", got[0], want)
	}
	if got[1].ID != "" || got[1].Name != "a name\nof two lines" || got[1].DiskSize != 1<<30 || got[1].Offset != table+72 {
		t.Errorf("%+v", got[1])
	}
	if got[2].ID != "17" || got[2].Name != "" || !got[2].Date.Equal(testimg.SnapshotDate(2)) {
		t.Errorf("%+v", got[2])
	}
	if _, err := img.Snapshot(3); err == nil {
		t.Error("snapshot 3 of 3")
	}
	if _, err := img.Snapshot(-1); err == nil {
		t.Error("snapshot -1")
	}
}

// TestSnapshotTableEnds: the last entry may lack its padding, but nothing else.
func TestSnapshotTableEnds(t *testing.T) {
	q := testimg.NewQcow2(testimg.Qcow2Options{Size: 1 << 20})
	q.Snapshot("1", "one")
	b := q.Bytes()
	table := b[be.Uint64(b[64:]):][:68]
	b = patched(b, u64(64, uint64(len(b))))
	for cut := range 68 {
		img, err := openBytes(append(bytes.Clone(b), table[:68-cut]...), Options{})
		switch {
		case cut == 0 && (err != nil || img.Snapshots()[0].Name != "one"):
			t.Error(err)
		case cut > 28:
			wantFormatError(t, err, "qcow2 header at 0x40: snapshots_offset")
		case cut > 0:
			wantFormatError(t, err, "qcow2 snapshot 1 of 1: qcow2 snapshot table entry at")
		}
	}
}

// TestShortSnapshotEntry: old entries have no extra data, or only a part of it.
func TestShortSnapshotEntry(t *testing.T) {
	for extra, want := range map[uint32]Snapshot{
		0:  {VMStateSize: 99, DiskSize: 1 << 20, ICount: 1<<64 - 1},
		8:  {VMStateSize: 7, DiskSize: 1 << 20, ICount: 1<<64 - 1},
		16: {VMStateSize: 7, DiskSize: 1 << 19, ICount: 1<<64 - 1},
		24: {VMStateSize: 7, DiskSize: 1 << 19, ICount: 3},
		40: {VMStateSize: 7, DiskSize: 1 << 19, ICount: 3},
	} {
		q := testimg.NewQcow2(testimg.Qcow2Options{Size: 1 << 20})
		q.Snapshot("1", "name")
		b := q.Bytes()
		at := int64(be.Uint64(b[64:]))
		entry := bytes.Clone(b[at : at+40])
		be.PutUint32(entry[32:], 99)
		be.PutUint32(entry[36:], extra)
		fields := be.AppendUint64(be.AppendUint64(be.AppendUint64(nil, 7), 1<<19), 3)
		entry = append(entry, append(fields, make([]byte, 16)...)[:extra]...)
		img, err := openBytes(patched(b, patch{at, append(entry, "1name"...)}), Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := img.Snapshots()[0]
		if got.ID != "1" || got.Name != "name" || got.VMStateSize != want.VMStateSize || got.DiskSize != want.DiskSize || got.ICount != want.ICount {
			t.Errorf("%d bytes of extra data: %+v", extra, got)
		}
	}
}

func TestSnapshotRefused(t *testing.T) {
	q := testimg.NewQcow2(testimg.Qcow2Options{Size: 10 << 20})
	q.Snapshot("1", "one")
	b := q.Bytes()
	table := int64(be.Uint64(b[64:]))
	for _, c := range []struct {
		patch patch
		want  string
	}{
		{u32(table+8, 4<<20+1), "l1_size 0x400001: more than 4194304 entries"},
		{u32(table+8, 4<<20), "l1_table_offset 0x20000: 33554432 bytes there are not inside the file"},
		{u32(table+8, 0), "l1_size 0x0: a disk of 10485760 bytes needs 1 entries"},
		{u64(table, 0x10200), "l1_table_offset 0x10200: not cluster aligned"},
		{u64(table, 0), "a table at the place of the header"},
		{u64(table, 1<<62), "not inside the file"},
		{u64(table+48, 1<<62), "a disk of 4611686018427387904 bytes needs 8589934592 entries"},
	} {
		img, err := openBytes(patched(b, c.patch), Options{})
		if err != nil {
			t.Errorf("%s: %v", c.want, err) // the active state is sound
			continue
		}
		v, err := img.Snapshot(0)
		wantFormatError(t, err, c.want)
		if v != nil {
			t.Error("an error and a view")
		}
		if err != nil && !strings.Contains(err.Error(), `snapshot "one"`) {
			t.Errorf("does not say which: %v", err)
		}
	}
	b = patched(b, u64(72, uint64(IncompatDataFile)))
	img, err := openBytes(b, Options{Data: func(string) (io.ReaderAt, int64, error) { return bytes.NewReader(nil), 0, nil }})
	if err != nil {
		t.Fatal(err)
	}
	_, err = img.Snapshot(0)
	wantFormatError(t, err, "internal snapshots do not exist with an external data file")
}
