package fuzz

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
	"time"

	"cbt/internal/testthin"
	"cbt/lvm/thin"
	"cbt/sparse"
)

// thinPools are sound pools with snapshots, high trees and a metadata snapshot.
func thinPools() (images []testthin.Image) {
	for _, fill := range []int{3, 6, 252} {
		p := testthin.New(300, 120, fill)
		p.Create(1)
		for k := range uint64(40) {
			p.Write(1, 3*k)
		}
		p.Snapshot(1, 2)
		p.Write(2, 9)
		p.Write(2, 10)
		p.Discard(2, 30)
		p.Create(1 << 23)
		if fill != 6 {
			p.Hold()
			p.Write(1, 60)
		}
		images = append(images, p.Image())
	}
	return images
}

var thinKinds = []testthin.Kind{testthin.Superblock, testthin.Node, testthin.Index, testthin.Bitmap}

// edited writes eight bytes for each eleven of edits, where, how and what, and
// gives the blocks their checksums again.
func edited(image testthin.Image, edits []byte) testthin.Image {
	b := bytes.Clone(image)
	for ; len(edits) >= 11; edits = edits[11:] {
		at := (int(binary.BigEndian.Uint16(edits))<<8 | int(edits[2])) % (len(b) - 8)
		block := testthin.Image(b).Block(uint64(at / 4096))
		kind := testthin.Kind(0)
		sum := binary.LittleEndian.Uint32(block)
		for _, k := range thinKinds {
			if testthin.Seal(block, k); binary.LittleEndian.Uint32(block) == sum {
				kind = k
			}
		}
		binary.LittleEndian.PutUint32(block, sum)
		copy(b[at:], edits[3:11])
		if kind != 0 && at%4096 >= 4 {
			testthin.Seal(block, kind)
		}
	}
	return b
}

func addThinSeeds(f *testing.F, images []testthin.Image) {
	for i := range images {
		f.Add(uint8(i+1), []byte{})
		f.Add(uint8(i+1), []byte("\x00\x01\x50\x00\x00\x00\x00\x08\x00\x00\x00"))
		f.Add(uint8(i+1), []byte("\x00\x10\x10\x03\x00\x00\x00\x03\x00\x00\x00"))
	}
	f.Add(uint8(0), []byte(images[0][:8192]))
}

// FuzzThin opens any bytes as the metadata of a thin pool, and sound ones with
// edits, and uses all that they hold: without a panic, without more memory than
// the bytes deserve, and with every failure a format error. What Changed does
// not name must be mapped alike.
func FuzzThin(f *testing.F) {
	images := thinPools()
	addThinSeeds(f, images)
	f.Fuzz(func(t *testing.T, base uint8, b []byte) {
		if base > 0 {
			b = edited(images[(int(base)-1)%len(images)], b)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, opt := range []thin.Options{{}, {Held: true}} {
			useThin(t, b, opt)
		}
		runtime.ReadMemStats(&after)
		if used, limit := after.TotalAlloc-before.TotalAlloc, uint64(64<<20+200*len(b)); used > limit {
			t.Errorf("%d bytes allocated for %d", used, len(b))
		}
	})
}

func useThin(t *testing.T, b []byte, opt thin.Options) {
	formatError := func(err error) bool {
		var fe *sparse.FormatError
		if err != nil && !errors.As(err, &fe) && !errors.Is(err, thin.ErrUnformatted) && !errors.Is(err, thin.ErrNotHeld) && !errors.Is(err, thin.ErrNoDevice) {
			t.Errorf("%T %v", err, err)
		}
		return err != nil
	}
	m, err := thin.Open(bytes.NewReader(b), int64(len(b)), opt)
	if formatError(err) {
		return
	}
	devices, err := m.Devices()
	formatError(err)
	if len(devices) == 0 {
		for _, id := range []uint32{1, 2} {
			d, err := m.Device(id)
			if !formatError(err) {
				devices = append(devices, d)
			}
		}
	}
	var views []*thin.View
	for _, d := range devices[:min(len(devices), 5)] {
		v, err := m.View(d.ID, 1<<30+int64(d.ID), thin.Data{}, nil)
		if formatError(err) {
			continue
		}
		_, err = v.MappedEnd()
		formatError(err)
		pos := int64(0)
		for e, err := range v.Extents(0, v.Size()) {
			if formatError(err) {
				pos = v.Size()
				break
			}
			if e.Off != pos || e.Len <= 0 {
				t.Fatalf("extent %v after %d", e, pos)
			}
			pos = e.End()
		}
		if pos != v.Size() {
			t.Fatalf("extents end at %d of %d", pos, v.Size())
		}
		// A mapped block cannot be read without the pool's data, whatever it is.
		v.ReadAt(make([]byte, 1), 1<<29)
		_, err = v.WrittenSinceCreation(context.Background(), views...)
		formatError(err)
		views = append(views, v)
	}
	for _, old := range views {
		for _, new := range views {
			unchangedAlike(t, old, new, formatError)
		}
	}
	if err := m.Recheck(); err != nil {
		t.Error(err)
	}
}

// unchangedAlike checks that where old and new do not differ both have data, or
// none.
func unchangedAlike(t *testing.T, old, new *thin.View, formatError func(error) bool) {
	n := max(old.Size(), new.Size())
	var changed sparse.Set
	for e, err := range thin.Changed(old, new, 0, n) {
		if formatError(err) {
			return
		}
		changed.Add(e.Off, e.End())
	}
	common := min(old.Size(), new.Size())
	for lo, hi := range changed.Without(0, common) {
		a, err := sparse.Collect(old.Extents(lo, hi-lo))
		b, err2 := sparse.Collect(new.Extents(lo, hi-lo))
		if formatError(err) || formatError(err2) {
			return // a damage in a part that both share is not met by Changed
		}
		if len(a) != len(b) {
			t.Fatalf("[%d,%d) is unchanged: %v, %v", lo, hi, a, b)
		}
		for i := range a {
			if a[i] != b[i] {
				t.Fatalf("[%d,%d) is unchanged: %v, %v", lo, hi, a, b)
			}
		}
	}
}

// FuzzThinCheck checks the same bytes. It must end; every fault must say where
// it is and what it breaks; and where it finds no corruption, all devices can
// be read.
func FuzzThinCheck(f *testing.F) {
	images := thinPools()
	addThinSeeds(f, images)
	f.Fuzz(func(t *testing.T, base uint8, b []byte) {
		if base > 0 {
			b = edited(images[(int(base)-1)%len(images)], b)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var counted int64
		stats, err := thin.Check(ctx, bytes.NewReader(b), int64(len(b)), func(x thin.Fault) {
			counted += int64(max(x.Blocks, 1))
			if x.Kind == 0 || x.Struct == "" || x.Msg == "" || x.Cite == "" || x.Keys && x.First > x.Last {
				t.Errorf("fault %+v", x)
			}
		})
		runtime.ReadMemStats(&after)
		if used, limit := after.TotalAlloc-before.TotalAlloc, uint64(96<<20+500*len(b)); used > limit {
			t.Errorf("%d bytes allocated for %d", used, len(b))
		}
		var format *sparse.FormatError
		switch {
		case err != nil && !errors.As(err, &format) && !errors.Is(err, thin.ErrUnformatted):
			t.Fatalf("%T %v", err, err)
		case err != nil && (stats != thin.CheckStats{} || counted > 0):
			t.Fatalf("an error and a result: %v, %+v", err, stats)
		case err != nil:
			return
		case stats.Corruptions+stats.Leaks+stats.Notes != counted:
			t.Errorf("%+v; reported %d", stats, counted)
		}
		if stats.Corruptions > 0 {
			return
		}
		m, err := thin.Open(bytes.NewReader(b), int64(len(b)), thin.Options{})
		if err != nil {
			t.Fatalf("no corruption, and: %v", err)
		}
		devices, err := m.Devices()
		if err != nil {
			t.Fatalf("no corruption, and: %v", err)
		}
		for _, d := range devices {
			v, err := m.View(d.ID, 1<<40, thin.Data{}, nil)
			if err != nil {
				t.Fatalf("no corruption, and: %v", err)
			}
			if _, err := sparse.Collect(v.Extents(0, v.Size())); err != nil {
				t.Fatalf("no corruption, and: %v", err)
			}
		}
	})
}
