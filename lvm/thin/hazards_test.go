package thin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"cbt/internal/testthin"
	"cbt/sparse"
)

// everything calls all that metadata offer, and returns the first error.
func everything(b []byte, opt Options) error {
	m, err := openBytes(b, opt)
	if err != nil {
		return err
	}
	devices, err := m.Devices()
	if err != nil {
		return err
	}
	data := Data{content{}, 1 << 40}
	var views []*View
	for _, d := range devices {
		if _, err := m.Device(d.ID); err != nil {
			return err
		}
		v, err := m.View(d.ID, 1<<30, data, nil)
		if err != nil {
			return err
		}
		if _, err := v.MappedEnd(); err != nil {
			return err
		}
		for e, err := range v.Extents(0, v.size) {
			if err != nil {
				return err
			}
			if _, err := v.ReadAt(make([]byte, 10), e.Off); err != nil {
				return err
			}
		}
		views = append(views, v)
	}
	for _, a := range views {
		for _, b := range views {
			for _, err := range Changed(a, b, 0, a.size) {
				if err != nil {
					return err
				}
			}
		}
	}
	return m.Recheck()
}

// wantRefused runs everything on a pool with some of the damages that the check is tested with.
func wantRefused(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		d, ok := damages[name]
		if !ok {
			t.Fatalf("no damage %q", name)
		}
		p := sharedPool()
		m := p.Image()
		if err := everything(m, Options{}); err != nil {
			t.Fatal(err)
		}
		d.make(p, m)
		err := everything(m, Options{})
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		if wantFormatError(t, err); strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHazard11BlocksOfAnotherKind(t *testing.T) {
	wantRefused(t, "checksum", "blocknr")
	p := sharedPool()
	m := p.Image()
	m.Edit(p.Path(1, 0)[0], testthin.Bitmap, func([]byte) {})
	if err := everything(m, Options{}); err == nil || !strings.Contains(err.Error(), "the block is a space map bitmap by its checksum") {
		t.Error(err)
	}
	// A node that is sound except for its place.
	m = p.Image()
	path := p.Path(1, 0)
	copy(m.Block(path[len(path)-1]), m.Block(p.Path(2, 50)[1]))
	wantFormatError(t, everything(m, Options{}))
}

func TestHazard12Unformatted(t *testing.T) {
	if err := everything(make([]byte, 1<<20), Options{}); !errors.Is(err, ErrUnformatted) {
		t.Error(err)
	}
}

func TestHazard13SuperblockUnderAGoodChecksum(t *testing.T) {
	wantRefused(t, "magic", "version", "incompat flags", "data block size 0", "data block size 100", "metadata block size", "time")
	for name, off := range map[string]int{"compat": 0x160, "compat_ro": 0x164, "needs_check": 4} {
		m := sharedPool().Image()
		m.Edit(0, testthin.Superblock, put32(off, 1))
		if err := everything(m, Options{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHazard14Cycles(t *testing.T) {
	wantRefused(t, "cycle")
	for up := range 3 {
		p := sharedPool()
		m := p.Image()
		path := p.Path(1, 20)
		if len(path) < 3 {
			t.Fatal("the tree is too low")
		}
		from := path[len(path)-2]
		m.Edit(from, testthin.Node, func(b []byte) { put64(0, path[min(up, len(path)-2)])(testthin.Value(b, 0)) })
		wantFormatError(t, everything(m, Options{}))
	}
	// Siblings that are the same node.
	p := sharedPool()
	m := p.Image()
	path := p.Path(1, 20)
	m.Edit(path[len(path)-2], testthin.Node, func(b []byte) { copy(testthin.Value(b, 1), testthin.Value(b, 0)) })
	wantFormatError(t, everything(m, Options{}))
}

func TestHazard15BlocksThatAreNotThere(t *testing.T) {
	wantRefused(t, "child 0", "mapping root", "details root")
	p := sharedPool()
	m := p.Image()
	for _, child := range []uint64{400, 1 << 32, 1<<52 + 1, math.MaxUint64} {
		m.Edit(p.Path(1, 20)[0], testthin.Node, func(b []byte) { put64(0, child)(testthin.Value(b, 0)) })
		wantFormatError(t, everything(m, Options{}))
	}
	m = p.Image()
	last := p.Path(3, 200)
	wantFormatError(t, everything(m[:last[len(last)-1]*BlockSize+100], Options{}))
}

func TestHazard16NodeHeaders(t *testing.T) {
	wantRefused(t, "entries", "max entries", "value size", "flags 0", "flags 3")
	for _, most := range []uint32{math.MaxUint32, 1 << 28, 1<<28 + 252, 509} {
		for _, size := range []uint32{8, math.MaxUint32, 1 << 28} {
			p := sharedPool()
			m := p.Image()
			leafEdit(1, 20, func(b []byte) {
				put32(20, most)(b)
				put32(24, size)(b)
				put32(16, min(most, 1<<28))(b)
			})(p, m)
			wantFormatError(t, everything(m, Options{}))
			check(t, m)
		}
	}
}

func TestHazard17Keys(t *testing.T) {
	wantRefused(t, "keys not ascending", "key outside", "a leaf too high")
	p := sharedPool()
	m := p.Image()
	path := p.Path(1, 20)
	m.Edit(path[len(path)-2], testthin.Node, put32(16, 0))
	wantFormatError(t, everything(m, Options{}))
	m = p.Image()
	m.Edit(path[len(path)-1], testthin.Node, put32(16, 0))
	wantFormatError(t, everything(m, Options{}))
}

func TestHazard18TreesOfDevices(t *testing.T) {
	wantRefused(t, "a device without record", "a record without device", "a device id of 25 bits", "root of a device is no mapping tree")
	p := sharedPool()
	m := p.Image()
	damages["a device without record"].make(p, m)
	o := mustOpen(t, m, Options{})
	for _, id := range []uint32{4, 9} {
		_, err := o.Device(id)
		wantFormatError(t, err)
	}
	if _, err := o.Device(77); !errors.Is(err, ErrNoDevice) {
		t.Error(err)
	}
}

func TestHazard19Mappings(t *testing.T) {
	wantRefused(t, "mapped to a block that is not there", "mapped in the future", "data blocks")
	// These the check finds.
	for _, name := range []string{"one data block twice in a leaf", "mapped blocks"} {
		p := sharedPool()
		m := p.Image()
		damages[name].make(p, m)
		if faults, _, err := check(t, m); err != nil || len(faults) == 0 {
			t.Errorf("%s: %v, %v", name, faults, err)
		}
	}
}

func TestHazard20HeldRoots(t *testing.T) {
	p := sharedPool()
	if _, err := openBytes(p.Image(), Options{Held: true}); !errors.Is(err, ErrNotHeld) {
		t.Error(err)
	}
	held := p.Hold()
	p.Write(1, 1)
	if err := everything(p.Image(), Options{Held: true}); err != nil {
		t.Fatal(err)
	}
	for name, root := range map[string]uint64{"past the end": 400, "huge": math.MaxUint64, "a node": p.Path(1, 0)[0], "free": 390} {
		m := p.Image()
		m.Edit(0, testthin.Superblock, put64(0x38, root))
		_, err := openBytes(m, Options{Held: true})
		if wantFormatError(t, err); err == nil {
			t.Error(name)
		}
		if faults, _, err := check(t, m); err != nil || len(faults) == 0 {
			t.Errorf("%s: %v, %v", name, faults, err)
		}
	}
	for name, edit := range map[string]func([]byte){
		"holds one itself":        put64(0x38, held),
		"has space maps":          put64(0x40, 5),
		"no mapping root":         put64(0x140, 0),
		"no details root":         put64(0x148, 0),
		"is of the future":        put32(0x2C, 1000),
		"has another block size":  put32(0x150, 256),
		"is the pool's own":       put64(8, 0),
		"is of an unknown format": put32(0x28, 1),
	} {
		m := p.Image()
		m.Edit(held, testthin.Superblock, edit)
		_, err := openBytes(m, Options{Held: true})
		if wantFormatError(t, err); err == nil {
			t.Error(name)
		}
		if faults, _, err := check(t, m); err != nil || len(faults) == 0 {
			t.Errorf("%s: %v, %v", name, faults, err)
		}
		if _, err := openBytes(m, Options{}); err != nil {
			t.Errorf("%s, not held: %v", name, err)
		}
	}
}

func TestHazard21HugeKeys(t *testing.T) {
	p := testthin.New(100, 100, 6)
	p.Create(1)
	p.Create(2)
	keys := []uint64{0, 5, 1<<40 - 1, 1<<47 - 1, 1 << 47, 1 << 50, 1<<63 - 1, 1 << 63, math.MaxUint64 - 1, math.MaxUint64}
	for _, k := range keys {
		p.Write(1, k)
	}
	p.Write(2, 1<<47-1)
	m := mustOpen(t, p.Image(), Options{})
	v := mustView(t, m, 1, math.MaxInt64, Data{content{}, 1 << 40}, nil)
	other := mustView(t, m, 2, math.MaxInt64, Data{}, nil)
	var got, want []int64
	for e, err := range v.Extents(0, math.MaxInt64) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == sparse.Data {
			got = append(got, e.Off>>16)
		}
	}
	for _, k := range keys[:4] {
		want = append(want, int64(k))
	}
	if len(got) != len(want) || got[3] != want[3] {
		t.Errorf("data at %v, want %v", got, want)
	}
	b := make([]byte, 100)
	if n, err := v.ReadAt(b, math.MaxInt64-50); n != 50 || err != io.EOF || bytes.Equal(b[:50], make([]byte, 50)) {
		t.Errorf("at the end: %d, %v", n, err)
	}
	diff, err := sparse.Collect(Changed(other, v, 0, math.MaxInt64))
	if err != nil || len(diff) != 4 || diff[3].End() != math.MaxInt64 {
		t.Errorf("changed: %v, %v", diff, err)
	}
	if _, err := v.MappedEnd(); err == nil {
		t.Error("no end of the last mapping was refused")
	}
	if end, err := other.MappedEnd(); err == nil {
		t.Errorf("mapped until %d", end)
	}
	if faults, _, err := check(t, p.Image()); err != nil || len(faults) > 0 {
		t.Errorf("%v, %v", faults, err)
	}
}

func TestHazard22MappedPastTheEnd(t *testing.T) {
	p := testthin.New(2000, 600, 6)
	p.Create(1)
	for k := range uint64(1000) {
		p.Write(1, k)
	}
	p.Snapshot(1, 2)
	p.Write(2, 999)
	m := mustOpen(t, p.Image(), Options{})
	before := m.NodesRead()
	old, new := mustView(t, m, 1, 3<<16+5, Data{content{}, 1 << 40}, nil), mustView(t, m, 2, 3<<16+5, Data{}, nil)
	all, err := sparse.Collect(new.Extents(0, new.size))
	if err != nil || len(all) != 1 || all[0].End() != new.size {
		t.Errorf("%v, %v", all, err)
	}
	if diff, err := sparse.Collect(Changed(old, new, 0, new.size)); err != nil || len(diff) > 0 {
		t.Errorf("%v, %v", diff, err)
	}
	if n, err := old.ReadAt(make([]byte, 1<<20), 0); int64(n) != old.size || err != io.EOF {
		t.Errorf("%d, %v", n, err)
	}
	if n := m.NodesRead() - before; n > 30 {
		t.Errorf("%d nodes read of a tree of which hardly any is in the device", n)
	}
}

// Many devices share one tree of many mappings. Each request about one device costs one tree, and
// the check reads each node once.
func TestHazard23SharedTrees(t *testing.T) {
	p := testthin.New(4000, 3000, 12)
	p.Create(1)
	for k := range uint64(1000) {
		p.Write(1, k)
	}
	for id := range uint32(500) {
		p.Snapshot(1, id+2)
	}
	img := p.Image()
	r := &changingReader{b: img}
	m, err := Open(r, int64(len(img)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	diff, err := sparse.Collect(Changed(mustView(t, m, 1, 1<<30, Data{}, nil), mustView(t, m, 500, 1<<30, Data{}, nil), 0, 1<<30))
	if err != nil || len(diff) > 0 || m.NodesRead() > 60 {
		t.Errorf("%v, %v, %d nodes read", diff, err, m.NodesRead())
	}
	r.reads = 0
	faults, stats, err := check(t, img)
	if err != nil || len(faults) > 0 || stats.Devices != 501 || stats.Mappings != 1000 {
		t.Errorf("%v, %+v, %v", faults, stats, err)
	}
	_, err = Check(t.Context(), r, int64(len(img)), nil)
	if limit := 4_000; err != nil || r.reads > limit {
		t.Errorf("%d reads, limit %d, %v", r.reads, limit, err)
	}
}

// Metadata that change while they are read: a read in progress goes on with the superblock that it
// began with, and Recheck then reports that it was in vain.
func TestHazard24ChangingMetadata(t *testing.T) {
	p := sharedPool()
	r := &changingReader{b: p.Image()}
	m, err := Open(r, int64(len(r.b)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	was := m.Superblock()
	p.Commit()
	for k := range uint64(20) {
		p.Write(1, 300+k)
	}
	r.b = p.Image()
	if v, err := m.View(1, 1<<30, Data{}, nil); err != nil {
		wantFormatError(t, err)
	} else if _, err := sparse.Collect(v.Extents(0, v.size)); err != nil {
		wantFormatError(t, err)
	}
	if m.Superblock() != was {
		t.Error("another superblock")
	}
	if err := m.Recheck(); !errors.Is(err, sparse.ErrChanged) {
		t.Error(err)
	}
	if err := m.Recheck(); !errors.Is(err, sparse.ErrChanged) {
		t.Error(err)
	}
}

// TestCut cuts metadata at every offset: what can still be read is equal to the whole.
func TestCut(t *testing.T) {
	p := testthin.New(300, 40, 3)
	p.Create(1)
	for k := range uint64(20) {
		p.Write(1, 2*k)
	}
	p.Snapshot(1, 2)
	p.Write(2, 8)
	p.Hold()
	p.Write(2, 9)
	for _, opt := range []Options{{}, {Held: true}} {
		whole := p.Image()
		want := answers(t, whole, opt)
		opened, read := 0, 0
		for size := 0; size < len(whole); size += cutStep(size) {
			got := answers(t, whole[:size:size], opt)
			for what, answer := range got {
				if answer != want[what] {
					t.Fatalf("cut at %d: %s: %s, want %s", size, what, answer, want[what])
				}
				read++
			}
			if got["devices"] != "" {
				opened++
			}
		}
		if opened == 0 || read == 0 {
			t.Errorf("%d opened, %d answers: shows nothing", opened, read)
		}
	}
}

// cutStep returns 1 around the ends of structures, and more inside free space, where all offsets
// are alike.
func cutStep(size int) int {
	if in := size % BlockSize; testing.Short() || in > 64 && in < BlockSize-64 {
		return 31
	}
	return 1
}

// answers returns what can be read of a pool; what fails is left out. All failures must be format
// errors.
func answers(t *testing.T, b []byte, opt Options) map[string]string {
	t.Helper()
	got := map[string]string{}
	put := func(what string, v any, err error) {
		if err != nil {
			wantFormatError(t, err)
			return
		}
		got[what] = fmt.Sprint(v)
	}
	m, err := openBytes(b, opt)
	if err != nil {
		wantFormatError(t, err)
		return got
	}
	devices, err := m.Devices()
	put("devices", devices, err)
	var views []*View
	for _, id := range []uint32{1, 2} {
		v, err := m.View(id, 64<<16, Data{}, nil)
		if err != nil {
			wantFormatError(t, err)
			return got
		}
		all, err := sparse.Collect(v.Extents(0, v.size))
		put(fmt.Sprint("extents of ", id), all, err)
		views = append(views, v)
	}
	diff, err := sparse.Collect(Changed(views[0], views[1], 0, views[0].size))
	put("changed", diff, err)
	return got
}
