package qcow2

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"cbt/sparse"
)

// place is what a state says about one byte of the disk. It is found by the text of the
// specification, one byte at a time, and shares nothing with the code under test but the decoded
// header.
type place struct {
	id   string // if equal for two states of files that stay as they are, the bytes are equal
	kind sparse.Kind
}

var (
	zeroPlace = place{"zero", sparse.Zero}
	holePlace = place{"zero", sparse.Hole}
)

// naivePlace finds the place of guest offset g of a view.
func naivePlace(t *testing.T, v sparse.View, g int64) place {
	t.Helper()
	if v == nil || g >= v.Size() {
		return holePlace
	}
	q, ok := v.(*View)
	if !ok {
		for e, err := range v.Extents(g, 1) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind.ReadsZero() {
				return place{"zero", e.Kind}
			}
		}
		return place{fmt.Sprintf("raw %p %d", v, g), sparse.Data}
	}
	h := &q.img.header
	word := func(off uint64) uint64 {
		var b [8]byte
		if _, err := q.img.file.r.ReadAt(b[:], int64(off)); err != nil {
			t.Fatal(err)
		}
		return binary.BigEndian.Uint64(b[:])
	}
	cluster, entrySize := uint64(1)<<h.ClusterBits, uint64(8)
	if h.Incompatible>>4&1 != 0 {
		entrySize = 16
	}
	perTable := cluster / entrySize
	number := uint64(g) / cluster
	table := word(q.l1Offset+number/perTable*8) & 0x00ff_ffff_ffff_fe00
	if table == 0 {
		return naivePlace(t, q.img.backing, g)
	}
	at := table + number%perTable*entrySize
	e, inside := word(at), uint64(g)%cluster
	host := e & 0x00ff_ffff_ffff_fe00
	stored := place{fmt.Sprintf("data %p %d", q.img, host+inside), sparse.Data}
	switch {
	case e>>62&1 != 0:
		return place{fmt.Sprintf("compressed %p %x %d", q.img, e&^(1<<63), inside), sparse.Data}
	case entrySize == 16:
		bitmap, i := word(at+8), inside*32/cluster
		switch {
		case bitmap>>(32+i)&1 != 0:
			return zeroPlace
		case bitmap>>i&1 != 0:
			return stored
		}
		return naivePlace(t, q.img.backing, g)
	case h.Version == 3 && e&1 != 0:
		return zeroPlace
	case host != 0 || h.HasDataFile() && e>>63 != 0:
		return stored
	}
	return naivePlace(t, q.img.backing, g)
}

// naivePlaces returns the place of the first byte of every sector, up to size.
func naivePlaces(t *testing.T, v sparse.View, size int64) []place {
	var all []place
	for g := int64(0); g < size; g += 512 {
		all = append(all, naivePlace(t, v, g))
	}
	return all
}

// checkExactly checks that Changed names the sectors whose places differ, with the kind of the new
// place, and no others. It does not look at sectors in which a raw backing file ends or changes.
func checkExactly(t *testing.T, name string, got []sparse.Extent, old, new []place, oldSize, newSize int64) {
	t.Helper()
	next := 0
	for i, p := range new {
		g := int64(i) * 512
		if g >= newSize {
			break
		}
		for next < len(got) && got[next].End() <= g {
			next++
		}
		named := next < len(got) && got[next].Off <= g
		before := holePlace
		if i < len(old) && g < oldSize {
			before = old[i]
		}
		want := before.id != p.id || g >= oldSize
		if named != want || named && got[next].Kind != p.kind {
			t.Errorf("%s: byte %d was %v and is %v: named %v, want %v; extents %v", name, g, before, p, named, want, got[min(next, len(got)):min(next+3, len(got))])
			return
		}
	}
}

// checkExtents checks that Extents agrees with the place of every sector.
func checkExtents(t *testing.T, s state, places []place) {
	t.Helper()
	got, err := sparse.Collect(s.v.Extents(0, s.v.Size()))
	if err != nil {
		t.Errorf("%s: %v", s.name, err)
		return
	}
	for i, p := range places {
		g := int64(i) * 512
		at := slices.IndexFunc(got, func(e sparse.Extent) bool { return e.Off <= g && g < e.End() })
		if at < 0 || got[at].Kind != p.kind {
			t.Errorf("%s: byte %d is %v, extents %v", s.name, g, p, got)
			return
		}
	}
}
