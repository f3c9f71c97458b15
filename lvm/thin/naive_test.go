package thin

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"cbt/internal/testthin"
	"cbt/sparse"
)

// openBytes opens metadata in memory.
func openBytes(b []byte, opt Options) (*Metadata, error) {
	return Open(bytes.NewReader(b), int64(len(b)), opt)
}

func mustOpen(t testing.TB, b []byte, opt Options) *Metadata {
	t.Helper()
	m, err := openBytes(b, opt)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mustView(t testing.TB, m *Metadata, id uint32, size int64, data Data, external sparse.View) *View {
	t.Helper()
	v, err := m.View(id, size, data, external)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantFormatError(t testing.TB, err error) {
	t.Helper()
	var fe *sparse.FormatError
	if !errors.As(err, &fe) {
		t.Errorf("%T %v, want a FormatError", err, err)
	}
}

// content is a pool's data, in which each 8 bytes hold their own offset.
type content struct{}

func (content) ReadAt(p []byte, off int64) (int, error) {
	b := binary.LittleEndian.AppendUint64(nil, 0)
	for i := 0; i < len(p); {
		at := off + int64(i)
		binary.LittleEndian.PutUint64(b, uint64(at/8)*0x9E3779B97F4A7C15|1)
		i += copy(p[i:], b[at%8:])
	}
	return len(p), nil
}

// naive is a device as a list of its blocks.
type naive struct {
	mapped    map[uint64]uint64
	size      int64
	blockSize int64
	external  sparse.View
}

// kinds returns the extents of [lo, hi) for which pick is true, cut at block boundaries.
func (d naive) kinds(lo, hi int64, pick func(block uint64) bool) ([]sparse.Extent, error) {
	return sparse.Collect(sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		for at := lo; at < hi; {
			block := uint64(at / d.blockSize)
			end := min(hi, (at/d.blockSize+1)*d.blockSize)
			if pick(block) {
				if _, ok := d.mapped[block]; ok {
					yield(sparse.Extent{Off: at, Len: end - at, Kind: sparse.Data}, nil)
				} else if d.external == nil {
					yield(sparse.Extent{Off: at, Len: end - at, Kind: sparse.Hole}, nil)
				} else {
					for e := range sparse.Resize(d.external, d.size).Extents(at, end-at) {
						yield(e, nil)
					}
				}
			}
			at = end
		}
	}))
}

// changed returns what Changed must yield for devices with the same external origin.
func (d naive) changed(old naive, off, n int64) ([]sparse.Extent, error) {
	end := min(off+n, d.size)
	common := max(off, min(end, old.size))
	a, err := d.kinds(off, common, func(block uint64) bool {
		x, inOld := old.mapped[block]
		y, inNew := d.mapped[block]
		return inOld != inNew || x != y
	})
	if err != nil {
		return nil, err
	}
	b, err := d.kinds(common, end, func(uint64) bool { return true })
	return append(a, b...), err
}

// joined returns the extents with neighbours joined.
func joined(all []sparse.Extent) []sparse.Extent {
	all, _ = sparse.Collect(sparse.Coalesce(sparse.Of(all...)))
	return all
}

// bytes returns the content of the device.
func (d naive) bytes(t testing.TB) []byte {
	b := make([]byte, d.size)
	for at := int64(0); at < d.size; at += d.blockSize {
		part := b[at:min(d.size, at+d.blockSize)]
		if data, ok := d.mapped[uint64(at/d.blockSize)]; ok {
			content{}.ReadAt(part, int64(data)*d.blockSize)
		} else if d.external != nil && at < d.external.Size() {
			part = part[:min(int64(len(part)), d.external.Size()-at)]
			if _, err := sparse.ReadFull(d.external, part, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b
}

// history is a pool after some random events.
type history struct {
	pool *testthin.Pool
	rnd  *rand.Rand
	next uint32
	keys func() uint64
}

func newHistory(seed uint64, fill int, keys func(*rand.Rand) uint64) *history {
	h := &history{pool: testthin.New(30_000, 6000, fill), rnd: rand.New(rand.NewPCG(seed, 7)), next: 2}
	h.keys = func() uint64 { return keys(h.rnd) }
	h.pool.Create(1)
	return h
}

// step makes one random change to the pool.
func (h *history) step() {
	ids := h.pool.Devices()
	id := ids[h.rnd.IntN(len(ids))]
	switch k := h.rnd.IntN(12); {
	case k < 5:
		for range h.rnd.IntN(40) {
			h.pool.Write(id, h.keys())
		}
		h.pool.Commit()
	case k < 7:
		for range h.rnd.IntN(30) {
			h.pool.Discard(id, h.keys())
		}
	case k < 10:
		h.pool.Snapshot(id, h.next)
		h.next += uint32(1 + h.rnd.IntN(3))
	case k == 10:
		h.pool.Create(h.next)
		h.next++
	case len(ids) > 2:
		h.pool.Delete(id)
	}
}

// copies returns the current devices.
func (h *history) copies() map[uint32]map[uint64]uint64 {
	all := map[uint32]map[uint64]uint64{}
	for _, id := range h.pool.Devices() {
		all[id] = maps.Clone(h.pool.Mappings(id))
	}
	return all
}

var (
	dense = func(r *rand.Rand) uint64 { return uint64(r.IntN(400)) }
	wide  = func(r *rand.Rand) uint64 { return uint64(r.IntN(64)) << r.IntN(32) }
)

// TestHistories compares the devices of random pools, and what changed between any two, with the
// lists of their blocks.
func TestHistories(t *testing.T) {
	rounds := uint64(40)
	if testing.Short() {
		rounds = 8
	}
	compared, skipped := 0, int64(0)
	for seed := range rounds {
		keys := dense
		if seed%3 == 2 {
			keys = wide
		}
		h := newHistory(seed, []int{3, 6, 12, 252}[seed%4], keys)
		for range 50 {
			h.step()
		}
		now, opt := h.copies(), Options{}
		if seed%2 == 1 {
			h.pool.Hold()
			opt.Held = true
			for range 20 {
				h.step()
			}
		}
		m := mustOpen(t, h.pool.Image(), opt)
		compared += compareDevices(t, m, now, h.rnd, seed)
		skipped += m.NodesRead()
	}
	t.Logf("%d pairs compared, %d nodes read", compared, skipped)
	if compared < 100 {
		t.Errorf("%d pairs compared: shows nothing", compared)
	}
}

// compareDevices compares everything that m reports about its devices with what they are.
func compareDevices(t *testing.T, m *Metadata, want map[uint32]map[uint64]uint64, rnd *rand.Rand, seed uint64) (compared int) {
	t.Helper()
	devices, err := m.Devices()
	if err != nil {
		t.Fatal(err)
	}
	ids := slices.Sorted(maps.Keys(want))
	if len(devices) != len(ids) {
		t.Fatalf("seed %d: %d devices, want %d", seed, len(devices), len(ids))
	}
	blockSize := m.Superblock().DataBlockSize
	views, models := make([]*View, len(ids)), make([]naive, len(ids))
	for i, id := range ids {
		if d, err := m.Device(id); err != nil || d != devices[i] || d.MappedBlocks != uint64(len(want[id])) {
			t.Fatalf("seed %d: device %+v, %v", seed, d, err)
		}
		size := rnd.Int64N(500*blockSize) + 1
		if rnd.IntN(3) == 0 {
			size = 400 * blockSize
		}
		models[i] = naive{mapped: want[id], size: size, blockSize: blockSize}
		views[i] = mustView(t, m, id, size, Data{}, nil)
		off := rnd.Int64N(size)
		n := rnd.Int64N(size - off + 1)
		got, err := sparse.Collect(views[i].Extents(off, n))
		all, _ := models[i].kinds(off, off+n, func(uint64) bool { return true })
		if err != nil || !slices.Equal(got, all) {
			t.Fatalf("seed %d: device %d: extents %v, %v, want %v", seed, id, got, err, all)
		}
	}
	for i := range ids {
		for j := range ids {
			larger := max(views[i].size, views[j].size)
			off, n := int64(0), larger
			if rnd.IntN(2) == 0 {
				off = rnd.Int64N(larger)
				n = rnd.Int64N(larger - off + 1)
			}
			got, err := sparse.Collect(Changed(views[i], views[j], off, n))
			list, _ := models[j].changed(models[i], off, n)
			if err != nil || !slices.Equal(got, joined(list)) {
				t.Fatalf("seed %d: %d to %d in [%d,+%d): %v, %v\nwant %v", seed, ids[i], ids[j], off, n, got, err, joined(list))
			}
			compared++
		}
	}
	return compared
}

// TestWrittenSinceCreation compares with the times of all mappings.
func TestWrittenSinceCreation(t *testing.T) {
	yes, no := 0, 0
	for seed := range uint64(30) {
		h := newHistory(seed, []int{3, 6, 252}[seed%3], dense)
		for range 60 {
			h.step()
		}
		m := mustOpen(t, h.pool.Image(), Options{})
		var views []*View
		for _, id := range h.pool.Devices() {
			views = append(views, mustView(t, m, id, 1<<40, Data{}, nil))
		}
		for _, v := range views {
			want := false
			w := m.walk(v.dev.Root, mappings, v.t, 0, 0, 1<<64-1)
			err := w.entries(func(n node, i, end int) bool {
				for ; i < end; i++ {
					want = want || mapping(n.u64(i)).time() >= v.dev.CreationTime
				}
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
			related := [][]*View{nil, views}
			for _, r := range views {
				related = append(related, []*View{r})
			}
			for _, r := range related {
				got, err := v.WrittenSinceCreation(context.Background(), r...)
				if err != nil || got != want {
					t.Fatalf("seed %d: device %d: %v, %v, want %v", seed, v.dev.ID, got, err, want)
				}
			}
			if want {
				yes++
			} else {
				no++
			}
		}
	}
	if yes == 0 || no == 0 {
		t.Errorf("%d written, %d not: shows nothing", yes, no)
	}
}

// mustRead reads all of a view.
func mustRead(t testing.TB, v sparse.View) []byte {
	t.Helper()
	b := make([]byte, v.Size())
	if _, err := sparse.ReadFull(v, b, 0); err != nil && err != io.EOF {
		t.Fatal(fmt.Errorf("reading: %w", err))
	}
	return b
}
