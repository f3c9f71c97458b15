package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"cbt/internal/testimg"
	"cbt/sparse"
)

// chain builds images, each over the one before; the first one is over raw, which may be nil.
func chain(t *testing.T, raw sparse.View, layers ...*testimg.Qcow2) []*Image {
	t.Helper()
	var all []*Image
	below := raw
	for _, q := range layers {
		img, err := openBytes(q.Bytes(), Options{Backing: func(string, string) (sparse.View, error) { return below, nil }})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, img)
		below = img.Active()
	}
	return all
}

// TestChangedOverShortLayer: past the end of a layer in the middle the disk reads as zeros,
// although the layer below has data there.
func TestChangedOverShortLayer(t *testing.T) {
	const cluster = 1 << 12
	opt := func(size int64) testimg.Qcow2Options {
		return testimg.Qcow2Options{ClusterBits: 12, Size: size, Backing: "b", BackingFormat: "qcow2"}
	}
	base := testimg.NewQcow2(testimg.Qcow2Options{ClusterBits: 12, Size: 8 * cluster})
	base.Write(0, numbered(8*cluster-512, 1))
	base.Entry(6*cluster, 0, 0)
	base.Snapshot("1", "before")
	base.Write(cluster, numbered(cluster, 2))
	middle := testimg.NewQcow2(opt(4*cluster + 512))
	middle.Write(2*cluster, numbered(cluster, 3))
	top := testimg.NewQcow2(opt(10 * cluster))
	top.Entry(3*cluster, 1, 0)
	imgs := chain(t, nil, base, middle, top)
	v := imgs[2].Active()
	want := []sparse.Extent{
		{Off: 2 * cluster, Len: cluster, Kind: sparse.Data},
		{Off: 3 * cluster, Len: cluster, Kind: sparse.Zero},
		{Off: 4*cluster + 512, Len: 2*cluster - 512, Kind: sparse.Hole}, // cluster 6 was never written
		{Off: 7 * cluster, Len: 3 * cluster, Kind: sparse.Hole},         // from 8 on: the bytes by which the disk grew
	}
	got := extents(t, Changed(imgs[0].Active(), v, 0, v.Size()))
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	checkUnnamedEqual(t, "over the base", got, mustRead(t, imgs[0].Active()), mustRead(t, v))

	before := mustSnapshot(t, imgs[0], 0)
	got = extents(t, Changed(before, v, 0, v.Size()))
	want[0] = sparse.Extent{Off: cluster, Len: 2 * cluster, Kind: sparse.Data}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	checkUnnamedEqual(t, "over a snapshot of the base", got, mustRead(t, before), mustRead(t, v))
	if over := extents(t, v.ChangedOver(before, 0, v.Size())); !slices.Equal(over, got) {
		t.Errorf("ChangedOver %v", over)
	}
}

func TestUnrelated(t *testing.T) {
	build := func(backing string) *testimg.Qcow2 {
		return testimg.NewQcow2(testimg.Qcow2Options{Size: 1 << 20, Backing: backing, BackingFormat: "raw"})
	}
	raw := sparse.Zeros(1 << 20)
	a, b := chain(t, raw, build("r"), build("a")), chain(t, nil, build(""))
	for i, seq := range []sparse.Seq{
		Changed(b[0].Active(), a[1].Active(), 0, 0),
		Changed(a[1].Active(), a[0].Active(), 0, 0), // newer and older swapped
		a[1].Active().ChangedOver(nil, 0, 0),
		a[1].Active().ChangedOver(sparse.Zeros(5), 0, 0),
		a[1].Active().ChangedOver(uncomparable{raw, nil}, 0, 0),
		b[0].Active().ChangedOver(raw, 0, 0),
	} {
		if _, err := sparse.Collect(seq); !errors.Is(err, sparse.ErrUnrelated) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if _, err := sparse.Collect(a[1].Active().ChangedOver(raw, 0, 1<<20)); err != nil {
		t.Error(err)
	}
}

type uncomparable struct {
	sparse.View
	_ []int
}

// TestChangedOfDamage: damage in something that must be compared is an error, after everything
// found before it.
func TestChangedOfDamage(t *testing.T) {
	const span = 1 << 29
	for _, over := range []bool{false, true} { // one table, and many with workers
		q := testimg.NewQcow2(testimg.Qcow2Options{Size: 4 * span})
		q.Snapshot("1", "one")
		q.Write(0, []byte("x"))
		q.Write(1<<16, []byte("y"))
		q.Write(2*span, []byte("z"))
		b := q.Bytes()
		img, err := openBytes(patched(b, u64(q.L2(1<<16), 2)), Options{})
		if err != nil {
			t.Fatal(err)
		}
		n := int64(span)
		if over {
			n = 4 * span
		}
		got, err := sparse.Collect(Changed(mustSnapshot(t, img, 0), img.Active(), 0, n))
		wantFormatError(t, err, fmt.Sprintf("qcow2 L2 entry at %#x: 0x2: reserved bits set", q.L2(1<<16)))
		if want := (sparse.Extent{Off: 0, Len: 1 << 16, Kind: sparse.Data}); len(got) != 1 || got[0] != want {
			t.Errorf("before the error %v", got)
		}
	}
}

// TestChangedStops: after breaking out of a sequence, the caller gets nothing more.
func TestChangedStops(t *testing.T) {
	const span = 1 << 29
	q := testimg.NewQcow2(testimg.Qcow2Options{Size: 9 * span})
	q.Snapshot("1", "one")
	for i := range int64(9) {
		q.Write(i*span, []byte("x"))
	}
	img, err := openBytes(q.Bytes(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	old := mustSnapshot(t, img, 0)
	for stop := range 10 {
		n := 0
		for range Changed(old, img.Active(), 0, old.Size()) {
			if n++; n > stop {
				break
			}
		}
		if n != min(stop+1, 9) {
			t.Errorf("%d extents before a stop after %d", n, stop+1)
		}
	}
}

// TestDataFile: in an external data file every cluster lies at its guest
// offset, the first one at 0.
func TestDataFile(t *testing.T) {
	const cluster = 1 << 12
	data := numbered(4*cluster, 1)
	q := testimg.NewQcow2(testimg.Qcow2Options{ClusterBits: 12, Size: 5 * cluster, DataFile: "d"})
	q.L2(0)
	b := q.Bytes()
	b = patched(b, u64(q.L2(0), 1<<63), u64(q.L2(cluster), 1<<63|cluster), u64(q.L2(3*cluster), 3*cluster|1))
	img, err := openBytes(b, Options{Data: func(string) (io.ReaderAt, int64, error) { return bytes.NewReader(data), int64(len(data)), nil }})
	if err != nil {
		t.Fatal(err)
	}
	v := img.Active()
	want := append(bytes.Clone(data[:2*cluster]), make([]byte, 3*cluster)...)
	if !bytes.Equal(mustRead(t, v), want) {
		t.Error("other content")
	}
	kinds := []sparse.Extent{{Off: 0, Len: 2 * cluster, Kind: sparse.Data}, {Off: 2 * cluster, Len: cluster, Kind: sparse.Hole},
		{Off: 3 * cluster, Len: cluster, Kind: sparse.Zero}, {Off: 4 * cluster, Len: cluster, Kind: sparse.Hole}}
	if got := extents(t, v.Extents(0, v.Size())); !slices.Equal(got, kinds) {
		t.Error(got)
	}
	var rows []MapExtent
	for m, err := range v.Map(0, v.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, m)
	}
	if rows[0] != (MapExtent{0, 2 * cluster, 0, true, false, true, false, false, 0}) || rows[2].Offset != 3*cluster {
		t.Error(rows)
	}
	if got := extents(t, Changed(v, v, 0, v.Size())); len(got) != 0 {
		t.Error(got)
	}
	img, err = openBytes(b, Options{Data: func(string) (io.ReaderAt, int64, error) { return bytes.NewReader(data), 2*cluster - 513, nil }})
	if err != nil {
		t.Fatal(err)
	}
	n, err := img.Active().ReadAt(make([]byte, 5*cluster), 0)
	wantFormatError(t, err, "guest offset 0x0: 8192 bytes there are past the end of the file of 7679 bytes")
	if n != 0 {
		t.Error(n)
	}
}
