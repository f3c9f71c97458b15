package qcow2

import (
	"errors"
	"slices"
	"testing"

	"cbt/internal/testimg"
	"cbt/sparse"
)

// bitmapImage returns an image with a disk of 5 MiB in clusters of 512 bytes and a bitmap of three
// clusters: some bits, all ones, all zeros. entry and extension may change the bytes of its
// directory entry and of the extension before they are stored.
func bitmapImage(autoclear uint64, entry func([]byte) []byte, extension func([]byte) []byte) (q *testimg.Qcow2, table int64) {
	q = testimg.NewQcow2(testimg.Qcow2Options{ClusterBits: 9, Size: 5 << 20, Autoclear: autoclear,
		Extensions: []testimg.Qcow2Extension{{Type: ExtensionBitmaps}}})
	bits := q.Alloc(512)
	q.Put(bits, []byte{0x01, 0x80, 0x01})
	q.Put(bits+511, []byte{0x80})
	table = q.Alloc(512)
	q.Put(table, be.AppendUint64(be.AppendUint64(nil, uint64(bits)), 1))
	b := bitmapDirectoryEntry(uint64(table), 3, 0, 1, 9, "b", nil)
	if entry != nil {
		b = entry(b)
	}
	directory := q.Alloc(int64(len(b)))
	q.Put(directory, b)
	x := bitmapsExtensionData(uint32(len(b)/32), uint64(len(b)), uint64(directory))
	if extension != nil {
		x = extension(x)
	}
	q.SetExtension(ExtensionBitmaps, x)
	return q, table
}

func TestBitmapBits(t *testing.T) {
	q, _ := bitmapImage(1, nil, nil)
	img, err := openBytes(q.Bytes(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	v := img.Active()
	for _, c := range []struct {
		off, n int64
		want   []sparse.Extent
	}{
		{0, 5 << 20, []sparse.Extent{{Off: 0, Len: 512}, {Off: 15 * 512, Len: 1024}, {Off: 2<<20 - 512, Len: 2<<20 + 512}}},
		{0, 0, nil},
		{511, 2, []sparse.Extent{{Off: 511, Len: 1}}},
		{100, 100, []sparse.Extent{{Off: 100, Len: 100}}},
		{16 * 512, 1, []sparse.Extent{{Off: 16 * 512, Len: 1}}},
		{2<<20 - 513, 2, []sparse.Extent{{Off: 2<<20 - 512, Len: 1}}},
		{3 << 20, 2 << 20, []sparse.Extent{{Off: 3 << 20, Len: 1 << 20}}},
		{4 << 20, 1 << 20, nil},
		{5 << 20, 0, nil},
	} {
		for i := range c.want {
			c.want[i].Kind = sparse.Hole
		}
		if got := extents(t, v.recorded("b", c.off, c.n)); !slices.Equal(got, c.want) {
			t.Errorf("[%d,+%d): %v, want %v", c.off, c.n, got, c.want)
		}
		stopped := 0
		for range v.recorded("b", c.off, c.n) {
			stopped++
			break
		}
		if stopped != min(1, len(c.want)) {
			t.Errorf("stopped after %d", stopped)
		}
	}
	for _, r := range [][2]int64{{-1, 1}, {0, 5<<20 + 1}, {5<<20 + 1, 0}} {
		if _, err := sparse.Collect(v.recorded("b", r[0], r[1])); err == nil {
			t.Errorf("range %v", r)
		}
	}
	if _, err := sparse.Collect(v.recorded("c", 0, 1)); err == nil || err.Error() != `qcow2: no bitmap "c"` {
		t.Error(err)
	}
}

func TestBitmapOfSnapshot(t *testing.T) {
	q, _ := bitmapImage(1, nil, nil)
	q.Snapshot("1", "one")
	img, err := openBytes(q.Bytes(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sparse.Collect(mustSnapshot(t, img, 0).recorded("b", 0, 1)); err == nil {
		t.Error("no error")
	}
}

func TestBitmapsRefused(t *testing.T) {
	set := func(at int, v ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at:], v); return b }
	}
	for _, c := range []struct {
		name      string
		entry     func([]byte) []byte
		extension func([]byte) []byte
		want      string
	}{
		{"in use", set(15, 1), nil, ErrBitmapInUse.Error()},
		{"flags", set(12, 1), nil, "flags 0x1000000: unknown flags"},
		{"type", set(16, 2), nil, "type 0x2: not a dirty tracking bitmap"},
		{"granularity 8", set(17, 8), nil, "granularity_bits 0x8: not in 9..31"},
		{"granularity 63", set(17, 63), nil, "granularity_bits 0x3f: not in 9..31"},
		{"table too short", set(8, 0, 0, 0, 2), nil, "bitmap_table_size 0x2: a disk of 5242880 bytes needs 3 entries"},
		{"table too long", set(8, 0x10), nil, "bitmap_table_size 0x10000003: a disk"},
		{"table unaligned", set(7, 8), nil, "not cluster aligned"},
		{"table nowhere", set(0, 0x40), nil, "not inside the file"},
		{"table negative", set(0, 0x80), nil, "not inside the file"},
		{"no name", set(18, 0, 0), nil, "name_size 0x0: not in 1..1023"},
		{"long name", set(18, 4, 0), nil, "longer than the directory"},
		{"extra data", func([]byte) []byte { return bitmapDirectoryEntry(1<<10, 3, 0, 1, 9, "b", make([]byte, 7)) }, nil, "extra_data_size 0x7: unknown extra data that must not be ignored"},
		{"extra data too long", set(20, 0xff, 0xff, 0xff, 0xff), nil, "longer than the directory"},
		{"twice", func(b []byte) []byte { return append(b, b...) }, nil, `name "b": twice in one image`},
		{"no bitmaps", nil, set(3, 0), "nb_bitmaps 0x0: not in 1..65535"},
		{"too many", nil, set(0, 0, 1, 0, 0), "nb_bitmaps 0x10000: not in 1..65535"},
		{"more than there are", nil, set(3, 2), "qcow2 bitmap 2 of 2: qcow2 bitmap directory entry at"},
		{"reserved", nil, set(7, 1), "reserved 0x1: not zero"},
		{"directory too large", nil, set(8, 0, 0, 0, 0, 4), "bitmap_directory_size 0x4000020: more than 67107840"},
		{"directory too long", nil, set(15, 40), "bitmap_directory_size 0x28: its 1 entries have 32 bytes"},
		{"directory unaligned", nil, set(23, 8), "not cluster aligned"},
		{"directory nowhere", nil, set(16, 1), "not inside the file"},
		{"extension too short", nil, func(b []byte) []byte { return b[:16] }, "length: not 24"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, _ := bitmapImage(1, c.entry, c.extension)
			img, err := openBytes(q.Bytes(), Options{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = sparse.Collect(img.Active().recorded("b", 0, 5<<20))
			wantFormatError(t, err, c.want)
			mustRead(t, img.Active()) // none of this matters to the disk
		})
	}
}

func TestBitmapTableRefused(t *testing.T) {
	for entry, want := range map[uint64]string{
		2:           "0x2: reserved bits set",
		1<<9 | 1:    "0x201: reserved bits set",
		1 << 60:     "0x1000000000000000: reserved bits set",
		1 << 40:     "0x10000000000: bits past the end of the file",
		1<<56 - 512: "bits past the end of the file",
	} {
		q, table := bitmapImage(1, nil, nil)
		img, err := openBytes(patched(q.Bytes(), u64(table+16, entry)), Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := sparse.Collect(img.Active().recorded("b", 0, 5<<20))
		wantFormatError(t, err, want)
		if len(got) == 0 {
			t.Error("nothing before the error")
		}
	}
}

// TestExtraDataCompatible: with the flag, unknown extra data may be ignored.
func TestExtraDataCompatible(t *testing.T) {
	q, table := bitmapImage(1, func(b []byte) []byte { return make([]byte, 32) }, nil)
	b := q.Bytes()
	directory := table + 512
	b = patched(b, patch{directory, bitmapDirectoryEntry(uint64(table), 3, 4, 1, 9, "b", make([]byte, 7))})
	img, err := openBytes(b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := sparse.Total(img.Active().recorded("b", 0, 5<<20)); err != nil || n != 2<<20+4*512 {
		t.Error(n, err)
	}
}

// TestStaleBitmaps: without the autoclear bit the extension is ignored.
func TestStaleBitmaps(t *testing.T) {
	q, _ := bitmapImage(0, nil, func(b []byte) []byte { clear(b); return b })
	img, err := openBytes(q.Bytes(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = img.Bitmaps()
	wantFormatError(t, err, "qcow2 bitmaps extension: the autoclear bit")
	_, err = sparse.Collect(img.Active().recorded("b", 0, 5<<20))
	if !errors.Is(err, ErrBitmapsStale) {
		t.Error(err)
	}
	img, err = openBytes(testimg.NewQcow2(testimg.Qcow2Options{Autoclear: 1}).Bytes(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if list, err := img.Bitmaps(); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}
