package qcow2

import (
	"bytes"
	"slices"
	"testing"

	"cbt/internal/testimg"
	"cbt/sparse"
)

func extents(t *testing.T, s sparse.Seq) []sparse.Extent {
	t.Helper()
	all, err := sparse.Collect(s)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestSharedTablesAreNotRead counts what Changed reads.
func TestSharedTablesAreNotRead(t *testing.T) {
	const span = 512 * 64
	q := testimg.NewQcow2(testimg.Qcow2Options{ClusterBits: 9, Size: 1000 * span})
	for i := range int64(1000) {
		q.Write(i*span, numbered(512, uint64(i)))
	}
	q.Snapshot("1", "one")
	q.Write(100*span+512, numbered(512, 1))
	q.Write(700*span, numbered(512, 2))
	q.Snapshot("2", "two")
	r := &recorder{b: q.Bytes()}
	img := r.open(t, Options{})
	one, two := mustSnapshot(t, img, 0), mustSnapshot(t, img, 1)
	r.take()

	if got := extents(t, Changed(two, img.Active(), 0, two.Size())); len(got) != 0 {
		t.Errorf("nothing changed, but %v", got)
	}
	if n := len(r.take()); n != 2 {
		t.Errorf("nothing changed: %d reads, want the 2 L1 tables", n)
	}
	got := extents(t, Changed(one, two, 0, two.Size()))
	want := []sparse.Extent{{Off: 100*span + 512, Len: 512, Kind: sparse.Data}, {Off: 700 * span, Len: 512, Kind: sparse.Data}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	tables := 0
	for _, read := range r.take() {
		if read[1] == 512 {
			tables++
		}
	}
	if tables != 4 {
		t.Errorf("%d L2 tables read, want those 2 of both that differ", tables)
	}
}

// TestChangedDescriptors builds a state, freezes it and builds another one.
func TestChangedDescriptors(t *testing.T) {
	const cluster = 1 << 14
	for _, c := range []struct {
		name     string
		opt      testimg.Qcow2Options
		old, new func(q *testimg.Qcow2)
		want     []sparse.Extent
	}{
		{"nothing", testimg.Qcow2Options{}, func(q *testimg.Qcow2) { q.Write(0, []byte("a")) }, func(q *testimg.Qcow2) {}, nil},
		{"same host offset, zero flag", testimg.Qcow2Options{},
			func(q *testimg.Qcow2) { q.Entry(0, uint64(q.Alloc(cluster)), 0) },
			func(q *testimg.Qcow2) { q.Entry(0, q.Word(q.L2(0))|1, 0) },
			[]sparse.Extent{{Off: 0, Len: cluster, Kind: sparse.Zero}}},
		{"two kinds of zeros", testimg.Qcow2Options{},
			func(q *testimg.Qcow2) { q.Entry(0, uint64(q.Alloc(cluster))|1, 0) },
			func(q *testimg.Qcow2) { q.Entry(0, 1, 0) }, nil},
		{"zeros and nothing", testimg.Qcow2Options{},
			func(q *testimg.Qcow2) { q.Entry(0, 1, 0) },
			func(q *testimg.Qcow2) { q.Entry(0, 0, 0); q.Entry(cluster, 1, 0) }, nil},
		{"zeros over a backing file", testimg.Qcow2Options{Backing: "b", BackingFormat: "raw"},
			func(q *testimg.Qcow2) { q.L2(0) },
			func(q *testimg.Qcow2) { q.Entry(0, 1, 0); q.Entry(2*cluster, 1, 0); q.Entry(3*cluster, 1, 0) },
			[]sparse.Extent{{Off: 0, Len: cluster, Kind: sparse.Zero}, {Off: 2 * cluster, Len: 100, Kind: sparse.Zero}}},
		{"a backing file appears", testimg.Qcow2Options{Backing: "b", BackingFormat: "raw"},
			func(q *testimg.Qcow2) { q.Entry(0, 1, 0); q.Write(2*cluster, []byte("x")) },
			func(q *testimg.Qcow2) { q.Entry(0, 0, 0); q.Entry(2*cluster, 0, 0) },
			[]sparse.Extent{{Off: 0, Len: cluster, Kind: sparse.Data}, {Off: 2 * cluster, Len: 100, Kind: sparse.Data}, {Off: 2*cluster + 100, Len: cluster - 100, Kind: sparse.Hole}}},
		{"compressed elsewhere", testimg.Qcow2Options{},
			func(q *testimg.Qcow2) { q.Compress(0, []byte("x")); q.Compress(cluster, []byte("y")) },
			func(q *testimg.Qcow2) { q.Entry(0, q.Word(q.L2(cluster)), 0) },
			[]sparse.Extent{{Off: 0, Len: cluster, Kind: sparse.Data}}},
		{"compressed, one sector more", testimg.Qcow2Options{},
			func(q *testimg.Qcow2) { q.Compress(0, []byte("x")) },
			func(q *testimg.Qcow2) { q.Entry(0, q.Word(q.L2(0))+1<<(70-14), 0) },
			[]sparse.Extent{{Off: 0, Len: cluster, Kind: sparse.Data}}},
		{"subclusters", testimg.Qcow2Options{ExtendedL2: true},
			func(q *testimg.Qcow2) { q.Entry(0, uint64(q.Alloc(cluster)), 1<<63|0xff) },
			func(q *testimg.Qcow2) { q.Entry(0, q.Word(q.L2(0)), 1<<(32+7)|0x1007f) },
			[]sparse.Extent{{Off: 7 * 512, Len: 512, Kind: sparse.Zero}, {Off: 16 * 512, Len: 512, Kind: sparse.Data}}},
		{"the highest bit of a subcluster bitmap", testimg.Qcow2Options{ExtendedL2: true},
			func(q *testimg.Qcow2) { q.Entry(0, uint64(q.Alloc(cluster)), 1<<31) },
			func(q *testimg.Qcow2) { q.Entry(0, q.Word(q.L2(0)), 1<<63) },
			[]sparse.Extent{{Off: 31 * 512, Len: 512, Kind: sparse.Zero}}},
		{"a table appears", testimg.Qcow2Options{},
			func(q *testimg.Qcow2) {},
			func(q *testimg.Qcow2) { q.Entry(0, 1, 0); q.Write(5*cluster, make([]byte, 2*cluster)) },
			[]sparse.Extent{{Off: 5 * cluster, Len: 2 * cluster, Kind: sparse.Data}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.opt.ClusterBits, c.opt.Size = 14, 10*cluster
			q := testimg.NewQcow2(c.opt)
			c.old(q)
			q.Snapshot("1", "old")
			c.new(q)
			base := sparse.Plain(bytes.NewReader(numbered(2*cluster+100, 1)), 2*cluster+100)
			img, err := openBytes(q.Bytes(), Options{Backing: func(string, string) (sparse.View, error) { return base, nil }})
			if err != nil {
				t.Fatal(err)
			}
			old, new := mustSnapshot(t, img, 0), img.Active()
			if got := extents(t, Changed(old, new, 0, old.Size())); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			back := extents(t, Changed(new, old, 0, old.Size()))
			a, _ := sparse.Total(sparse.Of(back...))
			b, _ := sparse.Total(sparse.Of(c.want...))
			if a != b {
				t.Errorf("the other way round %v", back)
			}
		})
	}
}

// TestCopiedIsIgnored sets every COPIED bit of one state.
func TestCopiedIsIgnored(t *testing.T) {
	for _, opt := range []testimg.Qcow2Options{{}, {ExtendedL2: true}} {
		opt.ClusterBits, opt.Size = 14, 5<<14
		q := testimg.NewQcow2(opt)
		q.Write(0, numbered(3<<14, 1))
		old := q.L2(0)
		q.Snapshot("1", "one")
		q.Write(1<<14, numbered(1<<14, 2)) // the rest of the table is a copy
		b := q.Bytes()
		size := int64(8)
		if opt.ExtendedL2 {
			size = 16
		}
		for i := range int64(3) {
			b[old+i*size] |= 0x80
		}
		b[int64(be.Uint64(b[be.Uint64(b[64:]):]))] |= 0x80 // the L1 table of the snapshot
		img, err := openBytes(b, Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := extents(t, Changed(mustSnapshot(t, img, 0), img.Active(), 0, 5<<14))
		if want := (sparse.Extent{Off: 1 << 14, Len: 1 << 14, Kind: sparse.Data}); len(got) != 1 || got[0] != want {
			t.Errorf("extended %v: %v", opt.ExtendedL2, got)
		}
	}
}

func TestChangedSizes(t *testing.T) {
	const cluster = 1 << 16
	q := testimg.NewQcow2(testimg.Qcow2Options{Size: 2*cluster + 1024})
	q.Write(2*cluster, numbered(cluster, 1)) // more than the disk shows
	q.Snapshot("1", "small")
	q.Resize(5 * cluster)
	q.Write(4*cluster, numbered(cluster, 2))
	img, err := openBytes(q.Bytes(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	small, large := mustSnapshot(t, img, 0), img.Active()
	// The bytes by which the disk grew are named in full, although its tables are the same.
	want := []sparse.Extent{
		{Off: 2*cluster + 1024, Len: cluster - 1024, Kind: sparse.Data},
		{Off: 3 * cluster, Len: cluster, Kind: sparse.Hole},
		{Off: 4 * cluster, Len: cluster, Kind: sparse.Data},
	}
	if got := extents(t, Changed(small, large, 0, 5*cluster)); !slices.Equal(got, want) {
		t.Errorf("grown: %v, want %v", got, want)
	}
	if got := extents(t, Changed(large, small, 0, 5*cluster)); len(got) != 0 {
		t.Errorf("shrunk: %v", got)
	}
	for _, r := range [][2]int64{{-1, 1}, {0, 5*cluster + 1}, {5 * cluster, 1}, {0, -1}} {
		if _, err := sparse.Collect(Changed(small, large, r[0], r[1])); err == nil {
			t.Errorf("range %v", r)
		}
	}
}
