package qcow2

import (
	"bytes"
	"io"
	"os"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"

	"cbt/internal/testimg"
	"cbt/sparse"
)

// walkAll does everything with an image that can be done with one, within bounds, and returns the
// first error. It fails the test if the image makes a promise that it does not keep.
func walkAll(t testing.TB, img *Image) (first error) {
	note := func(err error) {
		if err != nil && first == nil {
			first = err
		}
	}
	views := []*View{img.Active()}
	for i := range min(len(img.Snapshots()), 5) {
		v, err := img.Snapshot(i)
		note(err)
		if err == nil {
			views = append(views, v)
		}
	}
	for _, v := range views {
		note(walkView(t, v))
		note(img.Recheck(v))
		for _, old := range views {
			steps := 0
			for e, err := range Changed(old, v, 0, max(old.Size(), v.Size())) {
				note(err)
				if err == nil && (e.Len <= 0 || e.Off < 0 || e.End() > v.Size()) {
					t.Errorf("Changed: %v in a disk of %d bytes", e, v.Size())
				}
				if steps++; steps > 1000 {
					break
				}
			}
		}
	}
	list, err := img.Bitmaps()
	note(err)
	for _, b := range list[:min(len(list), 5)] {
		for _, err := range first1000(img.Active().recorded(b.Name, 0, img.Active().Size())) {
			note(err)
		}
	}
	return first
}

func walkView(t testing.TB, v *View) (first error) {
	pos := int64(0)
	for e, err := range first1000(v.Extents(0, v.Size())) {
		if err != nil {
			first = err
			break
		}
		if e.Off != pos || e.Len <= 0 || e.End() > v.Size() {
			t.Errorf("Extents: %v after %d in a disk of %d bytes", e, pos, v.Size())
			break
		}
		pos = e.End()
		p := make([]byte, min(e.Len, 64<<10))
		n, err := v.ReadAt(p, e.Off)
		if err != nil && err != io.EOF {
			if first == nil {
				first = err
			}
		} else if n != len(p) {
			t.Errorf("ReadAt(%d, %d) = %d without an error", len(p), e.Off, n)
		} else if e.Kind.ReadsZero() && !sparse.IsZero(p) {
			t.Errorf("%v is not zero", e)
		}
	}
	steps := 0
	for _, err := range v.Map(0, v.Size()) {
		if steps++; err != nil || steps > 1000 {
			break
		}
	}
	return first
}

// first1000 ends a sequence that an image may make very long.
func first1000(s sparse.Seq) sparse.Seq {
	return func(yield func(sparse.Extent, error) bool) {
		n := 0
		for e, err := range s {
			if n++; !yield(e, err) || n == 1000 {
				return
			}
		}
	}
}

// smallImage returns an image with everything that the format has, in clusters of 512 bytes.
func smallImage() *testimg.Qcow2 {
	q := testimg.NewQcow2(testimg.Qcow2Options{
		ClusterBits: 9, Size: 40<<10 + 512, Clusters: 60, Backing: "base", BackingFormat: "raw",
		Autoclear:  1,
		Extensions: []testimg.Qcow2Extension{{Type: ExtensionBitmaps, Data: make([]byte, 24)}, {Type: 9, Data: []byte("unknown")}},
	})
	q.Write(0, numbered(1500, 1))
	q.Compress(2048, bytes.Repeat([]byte("compressed "), 40))
	q.Compress(2560, bytes.Repeat([]byte("too "), 100))
	q.Entry(4096, 1, 0)
	q.Snapshot("1", "one")
	q.Write(512, numbered(512, 2))
	q.Write(36<<10, numbered(4096, 3))
	q.Compress(3072, bytes.Repeat([]byte("again "), 70))
	q.Snapshot("2", "two")
	q.Resize(48 << 10)
	q.Write(47<<10, numbered(1024, 4))

	bits := q.Alloc(512)
	q.Put(bits, []byte{0x05, 0x80, 0xff})
	table := q.Alloc(8)
	q.Put(table, be.AppendUint64(nil, uint64(bits)))
	directory := q.Alloc(32)
	q.Put(directory, bitmapDirectoryEntry(uint64(table), 1, 0, 1, 9, "bits", nil))
	q.SetExtension(ExtensionBitmaps, bitmapsExtensionData(1, 32, uint64(directory)))
	return q
}

func bitmapDirectoryEntry(table uint64, entries, flags uint32, typ, granularity byte, name string, extra []byte) []byte {
	b := be.AppendUint32(be.AppendUint32(be.AppendUint64(nil, table), entries), flags)
	b = be.AppendUint16(append(b, typ, granularity), uint16(len(name)))
	b = be.AppendUint32(b, uint32(len(extra)))
	b = append(append(b, extra...), name...)
	return append(b, make([]byte, -len(b)&7)...)
}

func bitmapsExtensionData(n uint32, size, off uint64) []byte {
	return be.AppendUint64(be.AppendUint64(be.AppendUint32(be.AppendUint32(nil, n), 0), size), off)
}

func smallBase(string, string) (sparse.View, error) {
	b := numbered(30<<10, 9)
	return sparse.Plain(bytes.NewReader(b), int64(len(b))), nil
}

func TestSmallImageIsSound(t *testing.T) {
	b := smallImage().Bytes()
	img, err := openBytes(b, Options{Backing: smallBase})
	if err != nil {
		t.Fatal(err)
	}
	if err := walkAll(t, img); err != nil {
		t.Fatal(err)
	}
	if l, err := img.Bitmaps(); err != nil || len(l) != 1 || len(img.Snapshots()) != 2 {
		t.Error(l, err)
	}
}

// allocated returns how many bytes were ever allocated.
func allocated() uint64 {
	m := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(m)
	return m[0].Value.Uint64()
}

// TestFlippedBits flips bits of an image, one at a time: all of them if the environment variable
// CBT_EXHAUSTIVE is 1 (a few minutes), otherwise one in 31.
func TestFlippedBits(t *testing.T) {
	b := smallImage().Bytes()
	step := 31
	if testing.Short() {
		step = 127
	}
	if os.Getenv("CBT_EXHAUSTIVE") == "1" {
		step = 1
	}
	for bit := 0; bit < len(b)*8; bit += step {
		b[bit/8] ^= 1 << (bit % 8)
		before := allocated()
		if img, err := openBytes(b, Options{Backing: smallBase}); err == nil {
			walkAll(t, img)
		} else if !strings.Contains(err.Error(), "not allowed") { // the bit for a data file
			wantFormatError(t, err, "")
		}
		if n := allocated() - before; n > 32<<20 {
			t.Errorf("bit %d of byte %#x: %d bytes allocated", bit%8, bit/8, n)
		}
		b[bit/8] ^= 1 << (bit % 8)
		if t.Failed() {
			return
		}
	}
}

// TestAliasedTables: all 4 Mi L1 entries point to the same L2 table, which makes 2 TiB of data out
// of a file of 40 MiB. Also, the L1 table is its own first L2 table.
func TestAliasedTables(t *testing.T) {
	const entries = maxL1Bytes / 8
	q := testimg.NewQcow2(testimg.Qcow2Options{Size: entries << 29, L1Size: entries})
	q.L2(0)
	b := q.Bytes()
	table := uint64(q.L2(0))
	l1 := q.L1(0)
	for i := range int64(entries) {
		be.PutUint64(b[l1+i*8:], table)
	}
	be.PutUint64(b[table:], table)
	be.PutUint64(b[l1:], uint64(l1))
	before := allocated()
	img, err := openBytes(b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := walkAll(t, img); err != nil {
		t.Log(err) // the L1 table as an L2 table: offsets of tables are valid data offsets
	}
	if n := allocated() - before; n > 100<<20 { // includes 1,000 reads of 64 KiB
		t.Errorf("%d bytes allocated", n)
	}
	p := make([]byte, 512)
	if _, err := img.Active().ReadAt(p, 5<<29); err != nil || !bytes.Equal(p, b[table:table+512]) {
		t.Error(err)
	}
}

// TestLargestDisk: reading 2^61 bytes with nothing allocated takes no time, and neither does
// comparing two states of it.
func TestLargestDisk(t *testing.T) {
	q := testimg.NewQcow2(testimg.Qcow2Options{ClusterBits: 21, Size: 1 << 61, L1Size: maxL1Bytes / 8})
	q.Snapshot("1", "one")
	q.Write(1<<61-1<<21, []byte("the end"))
	img, err := openBytes(q.Bytes(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	v, old := img.Active(), mustSnapshot(t, img, 0)
	last := sparse.Extent{Off: 1<<61 - 1<<21, Len: 1 << 21, Kind: sparse.Data}
	hole := sparse.Extent{Off: 0, Len: last.Off, Kind: sparse.Hole}
	if got, err := sparse.Collect(v.Extents(0, v.Size())); err != nil || !slices.Equal(got, []sparse.Extent{hole, last}) {
		t.Error(got, err)
	}
	if got, err := sparse.Collect(Changed(old, v, 0, v.Size())); err != nil || !slices.Equal(got, []sparse.Extent{last}) {
		t.Error(got, err)
	}
	p := make([]byte, 8)
	if _, err := v.ReadAt(p, last.Off-1); err != nil || string(p) != "\x00the end" {
		t.Errorf("%q, %v", p, err)
	}
}

// TestSizesNearTheLimit tries sizes that QEMU's limits on tables exclude.
func TestSizesNearTheLimit(t *testing.T) {
	b := testimg.NewQcow2(testimg.Qcow2Options{ClusterBits: 21, Size: 1 << 30}).Bytes()
	for _, size := range []uint64{1 << 62, 1<<63 - 1, 1 << 63, 1<<64 - 1, 1<<61 + 1} {
		_, err := openBytes(patched(b, u64(24, size)), Options{})
		wantFormatError(t, err, "qcow2 header at 0x")
	}
}
