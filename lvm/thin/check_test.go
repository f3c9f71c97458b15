package thin

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/testthin"
	"cbt/internal/testtool"
)

// check checks metadata in memory.
func check(t testing.TB, b []byte) ([]Fault, CheckStats, error) {
	t.Helper()
	var all []Fault
	stats, err := Check(context.Background(), bytes.NewReader(b), int64(len(b)), func(f Fault) {
		if f.Struct == "" || f.Msg == "" || f.Cite == "" || f.Kind == 0 || f.Keys && f.First > f.Last {
			t.Errorf("fault %+v", f)
		}
		all = append(all, f)
	})
	return all, stats, err
}

func TestCheckSound(t *testing.T) {
	for seed := range uint64(24) {
		keys := dense
		if seed%3 == 2 {
			keys = wide
		}
		h := newHistory(seed, []int{3, 6, 12, 252}[seed%4], keys)
		for range 60 {
			h.step()
			if h.rnd.IntN(20) == 0 {
				h.pool.Hold()
			}
		}
		img := h.pool.Image()
		faults, stats, err := check(t, img)
		if err != nil || len(faults) > 0 {
			t.Errorf("seed %d: %v, %v", seed, faults, err)
		}
		mapped, used := map[uint64]bool{}, 0
		for _, id := range h.pool.Devices() {
			used += len(h.pool.Mappings(id))
			for _, b := range h.pool.Mappings(id) {
				mapped[b] = true
			}
		}
		if stats.Devices != int64(len(h.pool.Devices())) || stats.DataUsed < uint64(len(mapped)) || stats.Nodes == 0 {
			t.Errorf("seed %d: %+v", seed, stats)
		}
	}
}

// sharedPool returns a pool with a device 1, its snapshots 2 and 3, both written to, an empty
// device 4, and a metadata snapshot.
func sharedPool() *testthin.Pool {
	p := testthin.New(2000, 400, 6)
	p.Create(1)
	for b := range uint64(100) {
		p.Write(1, b)
	}
	p.Snapshot(1, 2)
	p.Write(2, 50)
	p.Snapshot(1, 3)
	p.Write(3, 10)
	p.Write(3, 200)
	p.Create(4)
	p.Commit()
	return p
}

// damage is one fault made in an image, and the report that it must cause.
type damage struct {
	make func(p *testthin.Pool, m testthin.Image)
	want string // in a fault's String
}

func leafEdit(id uint32, key uint64, edit func(b []byte)) func(*testthin.Pool, testthin.Image) {
	return func(p *testthin.Pool, m testthin.Image) {
		path := p.Path(id, key)
		m.Edit(path[len(path)-1], testthin.Node, edit)
	}
}

func superEdit(edit func(b []byte)) func(*testthin.Pool, testthin.Image) {
	return func(_ *testthin.Pool, m testthin.Image) { m.Edit(0, testthin.Superblock, edit) }
}

func put64(off int, v uint64) func([]byte) {
	return func(b []byte) { binary.LittleEndian.PutUint64(b[off:], v) }
}

func put32(off int, v uint32) func([]byte) {
	return func(b []byte) { binary.LittleEndian.PutUint32(b[off:], v) }
}

func u64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

var damages = map[string]damage{
	"magic":                {superEdit(put64(0x20, 1)), "thin superblock, block 0: magic 0x1"},
	"version":              {superEdit(put32(0x28, 3)), "version 0x3"},
	"data block size 0":    {superEdit(put32(0x150, 0)), "data_block_size 0x0"},
	"data block size 100":  {superEdit(put32(0x150, 100)), "data_block_size 0x64"},
	"metadata block size":  {superEdit(put32(0x154, 16)), "metadata_block_size 0x10"},
	"incompat flags":       {superEdit(put32(0x168, 4)), "incompat_flags 0x4"},
	"time":                 {superEdit(put32(0x2C, 1<<24)), "time 0x1000000"},
	"needs check":          {superEdit(put32(4, 1)), "note: thin superblock, block 0: flags: needs_check"},
	"compat flags":         {superEdit(put32(0x160, 1)), "note: thin superblock, block 0: compat_flags 0x1"},
	"mapping root":         {superEdit(put64(0x140, 0)), "data_mapping_root 0x0"},
	"details root":         {superEdit(put64(0x148, 1<<40)), "device_details_root 0x10000000000"},
	"held root":            {superEdit(put64(0x38, 4000)), "held_root 4000: not one of"},
	"held root to a node":  {func(p *testthin.Pool, m testthin.Image) { superEdit(put64(0x38, p.Path(1, 0)[0]))(p, m) }, "the block is a B-tree node"},
	"metadata blocks":      {superEdit(put64(0xC0, 401)), "nr_blocks 401: there are only 400"},
	"data blocks":          {superEdit(put64(0x40, 50)), "data block 96 is not among the pool's 50"},
	"data allocated":       {superEdit(put64(0x48, 7)), "space map of data blocks: nr_allocated is 7"},
	"metadata allocated":   {superEdit(put64(0xC8, 7)), "space map of metadata blocks: nr_allocated is 7"},
	"data bitmap root":     {superEdit(put64(0x50, 1<<30)), "thin data space map, block 1073741824"},
	"metadata bitmap root": {superEdit(put64(0xD0, 0)), "thin metadata space map, block 0: the index is not one of"},
	"mapped to a block that is not there": {leafEdit(2, 50, func(b []byte) {
		copy(testthin.Value(b, 1), binary.LittleEndian.AppendUint64(nil, 2000<<24))
	}), "data block 2000 is not among the pool's 2000"},
	"mapped in the future": {leafEdit(2, 50, func(b []byte) { testthin.Value(b, 0)[0] = 77 }), "mapped at time 77, and the pool's time is 2"},
	"keys not ascending": {leafEdit(1, 20, func(b []byte) {
		copy(testthin.Key(b, 1), testthin.Key(b, 0))
	}), "not above the one before"},
	"key outside": {leafEdit(1, 20, func(b []byte) {
		n := binary.LittleEndian.Uint32(b[16:])
		copy(testthin.Key(b, int(n)-1), binary.LittleEndian.AppendUint64(nil, 5000))
	}), "(keys 5000 to 5000): key"},
	"entries":     {leafEdit(1, 20, put32(16, 7)), "nr_entries 0x7: more than max_entries 6"},
	"max entries": {leafEdit(1, 20, put32(20, 1<<31)), "max_entries 0x80000000: do not fit"},
	"odd maximum": {leafEdit(1, 20, put32(20, 7)), "max_entries 0x7: not a multiple of 3"},
	"value size":  {leafEdit(1, 20, put32(24, 24)), "value_size 0x18: want 8"},
	"flags 0":     {leafEdit(1, 20, put32(4, 0)), "flags 0x0"},
	"flags 3":     {leafEdit(1, 20, put32(4, 3)), "flags 0x3"},
	"blocknr":     {leafEdit(1, 20, put64(8, 3)), "blocknr 0x3"},
	"checksum": {func(p *testthin.Pool, m testthin.Image) {
		path := p.Path(2, 50)
		m.Block(path[len(path)-1])[4000] ^= 1
	}, "thin mapping tree of device 2, block"},
	"cycle": {func(p *testthin.Pool, m testthin.Image) {
		path := p.Path(1, 20)
		m.Edit(path[len(path)-2], testthin.Node, func(b []byte) { put64(0, path[0])(testthin.Value(b, 0)) })
	}, "hangs below itself"},
	"child 0": {func(p *testthin.Pool, m testthin.Image) {
		m.Edit(p.Path(1, 20)[0], testthin.Node, func(b []byte) { put64(0, 0)(testthin.Value(b, 0)) })
	}, "block 0 (keys"},
	"a leaf too high": {func(p *testthin.Pool, m testthin.Image) {
		path := p.Path(3, 200)
		m.Edit(path[0], testthin.Node, func(b []byte) {
			last := int(binary.LittleEndian.Uint32(b[16:])) - 1
			put64(0, path[len(path)-1])(testthin.Value(b, last))
			copy(testthin.Key(b, last), testthin.Key(m.Block(path[len(path)-1]), 0))
		})
	}, "the leaves are 1 levels down"},
	"one data block twice in a leaf": {leafEdit(2, 50, func(b []byte) {
		copy(testthin.Value(b, 0), testthin.Value(b, 1))
	}), "are both mapped to data block"},
	"one data block twice, far away": {func(p *testthin.Pool, m testthin.Image) {
		data := p.Mappings(1)[99]
		leafEdit(3, 10, func(b []byte) { put64(0, data<<24)(testthin.Value(b, 0)) })(p, m)
	}, "99 are both mapped to data block 99"},
	"a device without record": {func(p *testthin.Pool, m testthin.Image) {
		m.Edit(u64(m[0x140:]), testthin.Node, func(b []byte) { put64(0, 9)(testthin.Key(b, 3)) })
	}, "thin device tree (keys 9 to 9): a device that is not in the details tree"},
	"a record without device": {func(p *testthin.Pool, m testthin.Image) {
		m.Edit(u64(m[0x140:]), testthin.Node, func(b []byte) { put64(0, 9)(testthin.Key(b, 3)) })
	}, "thin details tree (keys 4 to 4): a device that is not in the device tree"},
	"a device id of 25 bits": {func(p *testthin.Pool, m testthin.Image) {
		m.Edit(u64(m[0x140:]), testthin.Node, func(b []byte) { put64(0, 1<<24)(testthin.Key(b, 3)) })
	}, "more than 24 bits"},
	"mapped blocks": {func(p *testthin.Pool, m testthin.Image) {
		m.Edit(u64(m[0x148:]), testthin.Node, func(b []byte) { put64(32+8*6, 98)(b) })
	}, "mapped_blocks is 98, and 100 are mapped"},
	"root of a device is no mapping tree": {func(p *testthin.Pool, m testthin.Image) {
		m.Edit(u64(m[0x140:]), testthin.Node, func(b []byte) { put64(0, u64(m[0x148:]))(testthin.Value(b, 3)) })
	}, "thin mapping tree of device 4, block"},
	"a data block that leaks": {func(p *testthin.Pool, m testthin.Image) {
		bitmapEdit(m, false, 1000, 2)
	}, "leak: data block 1000: counted as used 1 times, and used 0 times"},
	"a data block that is free and used": {func(p *testthin.Pool, m testthin.Image) {
		bitmapEdit(m, false, 20, 0)
	}, "corruption: data block 20: counted as used 0 times, and used 1 times"},
	"a count that is not in the tree": {func(p *testthin.Pool, m testthin.Image) {
		bitmapEdit(m, false, 20, 3)
	}, "the bitmap says that the count is in the tree, and it is not"},
	"a metadata block that is free and used": {func(p *testthin.Pool, m testthin.Image) {
		bitmapEdit(m, true, int(p.Path(1, 0)[0]), 0)
	}, "counted as used 0 times"},
	"metadata blocks that leak": {func(p *testthin.Pool, m testthin.Image) {
		bitmapEdit(m, true, 380, 2)
		bitmapEdit(m, true, 381, 2)
	}, "leak: metadata block 380 to 381: counted as used 1 times"},
	"a bitmap that is a node": {func(p *testthin.Pool, m testthin.Image) {
		m.Edit(u64(m[0xD0:]), testthin.Index, func(b []byte) { put64(16, p.Path(1, 0)[0])(b) })
	}, "bitmap 0: the block is a B-tree node by its checksum"},
	"nr_free": {func(p *testthin.Pool, m testthin.Image) {
		m.Edit(u64(m[0xD0:]), testthin.Index, func(b []byte) { b[24]++ })
	}, "nr_free of bitmap 0"},
}

// bitmapEdit sets a block's code in the first bitmap of a space map.
func bitmapEdit(m testthin.Image, metadata bool, block int, code byte) {
	at := u64(testthin.Value(m.Block(u64(m[0x50:])), 0))
	if metadata {
		at = u64(m.Block(u64(m[0xD0:]))[16:])
	}
	m.Edit(at, testthin.Bitmap, func(b []byte) {
		shift := 2 * (block % 4)
		b[16+block/4] = b[16+block/4]&^(3<<shift) | code<<shift
	})
}

// TestCheckFinds makes faults one at a time.
func TestCheckFinds(t *testing.T) {
	for name, d := range damages {
		t.Run(name, func(t *testing.T) {
			p := sharedPool()
			m := p.Image()
			d.make(p, m)
			faults, stats, err := check(t, m)
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, f := range faults {
				all = append(all, f.String())
			}
			text := strings.Join(all, "\n")
			if !strings.Contains(text, d.want) {
				t.Errorf("want %q, have:\n%s", d.want, text)
			}
			if len(faults) > 40 {
				t.Errorf("%d faults:\n%s", len(faults), text)
			}
			if stats.Corruptions+stats.Leaks+stats.Notes < int64(len(faults)) {
				t.Errorf("%d faults, counted %+v", len(faults), stats)
			}
		})
	}
}

// TestCheckNames checks which devices are named for a fault in a shared node.
func TestCheckNames(t *testing.T) {
	p := sharedPool()
	m := p.Image()
	path := p.Path(1, 80)
	m.Block(path[len(path)-1])[100] ^= 1
	faults, _, err := check(t, m)
	if err != nil {
		t.Fatal(err)
	}
	devices := map[int64]bool{}
	for _, f := range faults {
		if f.Device >= 0 && f.First <= 80 && f.Last >= 80 {
			devices[f.Device] = true
		}
	}
	if len(devices) != 3 {
		t.Errorf("devices %v affected, want 1, 2 and 3: %v", devices, faults)
	}
}

func TestCheckRefuses(t *testing.T) {
	if _, _, err := check(t, make([]byte, 8192)); !errors.Is(err, ErrUnformatted) {
		t.Error(err)
	}
	m := sharedPool().Image()
	m[1000]++
	_, stats, err := check(t, m)
	wantFormatError(t, err)
	if stats != (CheckStats{}) {
		t.Errorf("%+v", stats)
	}
}

// TestCheckDifferential damages pools anywhere and runs thin_check on them too: whatever thin_check
// faults, Check must fault.
func TestCheckDifferential(t *testing.T) {
	testtool.Need(t, "thin_check")
	rounds := uint64(100)
	if testing.Short() {
		rounds = 20
	}
	file := filepath.Join(t.TempDir(), "meta")
	both, ours := 0, 0
	for seed := range rounds {
		rnd := rand.New(rand.NewPCG(seed, 3))
		p := sharedPool()
		if rnd.IntN(2) == 0 {
			p.Hold()
			p.Write(1, 3)
		}
		m := p.Image()
		sealAnyhow(m, rnd)
		if err := os.WriteFile(file, m, 0o600); err != nil {
			t.Fatal(err)
		}
		out, theirs := testtool.Try(t, "thin_check", file)
		faults, _, err := check(t, m)
		found := err != nil || len(faults) > 0
		if theirs != nil && !found {
			t.Errorf("seed %d: thin_check finds a fault, Check none:\n%s", seed, out)
		}
		if theirs != nil {
			both++
		} else if found {
			ours++
		}
	}
	t.Logf("%d of %d found by both, %d only by Check", both, rounds, ours)
	if both < int(rounds)/4 {
		t.Errorf("only %d found by both: shows nothing", both)
	}
}

// sealAnyhow changes some bytes of a block that is in use, and usually gives it the right checksum
// again.
func sealAnyhow(m testthin.Image, rnd *rand.Rand) {
	for {
		n := uint64(rnd.IntN(len(m) / BlockSize))
		b := m.Block(n)
		sum := binary.LittleEndian.Uint32(b)
		for _, k := range []testthin.Kind{testthin.Superblock, testthin.Node, testthin.Index, testthin.Bitmap} {
			if testthin.Seal(b, k); binary.LittleEndian.Uint32(b) != sum {
				continue
			}
			at := rnd.IntN(160)
			if k == testthin.Superblock {
				at = rnd.IntN(0x158)
			}
			b[4+at] ^= byte(1 << rnd.IntN(8))
			if rnd.IntN(10) > 0 {
				testthin.Seal(b, k)
			}
			return
		}
		binary.LittleEndian.PutUint32(b, sum)
	}
}
