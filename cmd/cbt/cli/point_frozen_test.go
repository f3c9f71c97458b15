package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"cbt/internal/infile"
	"cbt/internal/record"
	"cbt/qcow2"
)

// Points are a format: directories hold those that earlier versions made. What
// is before the + of a point is what they made, byte for byte; nothing here may
// ever be another one.
func TestFrozenPoints(t *testing.T) {
	at := time.Unix(1_700_000_000, 123_456_789)
	stat := infile.Stat{Dev: 64769, Fsid: 0x1122334455667788, Ino: 4711, Size: 1 << 20, Mtime: at, Btime: at.Add(-time.Hour)}
	nameless := stat
	nameless.Fsid, nameless.Btime = 0, time.Time{}
	base := stat
	base.Ino, base.Size = 12, 4096
	data := stat
	data.Ino = 13
	img := &image{file: &file{Input: &infile.Input{Info: stat}}, format: formatQcow2}
	over := &image{
		file: &file{Input: &infile.Input{Info: stat}}, format: formatQcow2, backingName: "base.raw",
		backing: &image{file: &file{Input: &infile.Input{Info: base}}, format: formatRaw},
	}
	withData := &image{
		file: &file{Input: &infile.Input{Info: stat}}, format: formatQcow2, backingName: "base.qcow2",
		backing: &image{file: &file{Input: &infile.Input{Info: base}}, format: formatQcow2, data: &file{Input: &infile.Input{Info: data}}},
	}
	snap := &qcow2.Snapshot{ID: "1", Name: "monday", Date: at, VMClock: 5, L1Offset: 0x30000, L1Entries: 2, DiskSize: 1 << 20, VMStateSize: 77}
	m := &machine{point: snapshotPoint(img, snap)}
	raw := &machine{point: rawPoint(stat)}
	for _, p := range []struct{ what, got, want string }{
		{"raw file", rawPoint(stat), "raw:a1980f6dfe1a19634751deba2dc6b09626756464dfd6b1d16ebb686e56e6c1d7"},
		{"raw file without birth time", rawPoint(nameless), "raw:d30753e7247b8d89a6014f871abb989fde7c863dc0ee4cce2b15dbc174fe79c0"},
		{"snapshot", snapshotPoint(img, snap), "qcow2:67cf2d298d2027e698710a176f506e97b3da9f993f1f92ca480bda0268fac38a"},
		{"snapshot over a raw file", snapshotPoint(over, snap), "qcow2:a0925411f6143f426f3e2e6a4e40cd436f86ae6e03700097d869f3afa06fde48"},
		{"snapshot over an image with a data file", snapshotPoint(withData, snap), "qcow2:ff68b4964ecb601be3516ce3a050a1260dc2c3128a6b65586bbd07eb7e0e66f2"},
		{"active state", activePoint(img), "qcow2:cd545fa60834cbb9197179f1d312addfb1081a0c179cf0a70c23c5310bfaf09a"},
		{"active state over a raw file", activePoint(over), "qcow2:909230b815c9112825351cab3045883ba159424bcd6ee351129972351daa35dd"},
		{"RAM of a snapshot", m.pointOf("ram/pc.ram"), "ram:ed2a342452dd926f7fe2205518995158af7396ef38da31cbb900bf77f6f10392"},
		{"RAM in a file", raw.pointOf("vmstate"), "ram:770731b90ce97320c309c82a61906dda235b5ae0babddaabd9a35ce369e11cc2"},
		{"identity in a record", identityIn(stat), "608d5a4b868ab08ddf7504db4333f8b200088a272899d28feea8aee9464371db"},
	} {
		before, _, _ := strings.Cut(p.got, "+")
		if before != p.want {
			t.Errorf("%s: %s, want %s", p.what, before, p.want)
		}
	}
}

func identityIn(st infile.Stat) string {
	var r record.Record
	r.Describe(nil, st)
	return r.File
}

// So are records: what an earlier version wrote is read, and says the same.
func TestFrozenRecord(t *testing.T) {
	at := time.Unix(1_700_000_000, 123_456_789).UTC()
	const old = `{
  "cbt-state": 1,
  "stream": "disk/0",
  "point": "qcow2:0123",
  "delta": "4567",
  "size": 1048576,
  "file": "89ab",
  "mtime": "2023-11-14T22:13:20.123456789Z"
}`
	var r record.Record
	if err := json.Unmarshal([]byte(old), &r); err != nil {
		t.Fatal(err)
	}
	if r.Version != 1 || r.Stream != "disk/0" || r.Point != "qcow2:0123" || r.Delta != "4567" || r.Size != 1<<20 || r.File != "89ab" || !r.Mtime.Equal(at) || r.Pending != nil {
		t.Errorf("%+v", r)
	}
	text, err := json.MarshalIndent(&r, "", "  ")
	if err != nil || string(text) != old {
		t.Errorf("written again: %v\n%s", err, text)
	}
}

// What an overlay over a delta without a point belongs to: the 32 bytes of the
// ID as they are. Another string orphans all overlays that there are.
func TestFrozenOverlayOfDelta(t *testing.T) {
	s := mustOpen(t, newTestOpener(t, openerOptions{}), "../../../cbt/testdata/v1-full.cbt", refOptions{})
	s.Point = ""
	const want = "delta:E\xa6\x00,\x90\x9c\xd8\x86\x96\x9a\x15r\x9e\x15\x99P\xae\xa4!\xa7\x8b\x87\xe6N\x93\xb3\xc4\x89\xf9x\xc7G:disk/0"
	if got := identityOf(s); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
