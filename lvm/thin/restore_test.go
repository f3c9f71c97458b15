package thin

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cbt/internal/sample"
	"cbt/internal/testtool"
	"cbt/sparse"
)

// mapRun is a run of mappings.
type mapRun struct{ key, data, n uint64 }

// xmlPool is a pool for thin_restore.
type xmlPool struct {
	sectors    int
	dataBlocks uint64
	ids        []uint32
	devices    map[uint32][]mapRun
}

func (p xmlPool) xml() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<superblock uuid="" time="3" transaction="9" flags="0" version="2" data_block_size="%d" nr_data_blocks="%d">`+"\n", p.sectors, p.dataBlocks)
	for _, id := range p.ids {
		n := uint64(0)
		for _, r := range p.devices[id] {
			n += r.n
		}
		fmt.Fprintf(&b, `<device dev_id="%d" mapped_blocks="%d" transaction="1" creation_time="1" snap_time="1">`+"\n", id, n)
		for _, r := range p.devices[id] {
			fmt.Fprintf(&b, `<range_mapping origin_begin="%d" data_begin="%d" length="%d" time="2"/>`+"\n", r.key, r.data, r.n)
		}
		fmt.Fprint(&b, "</device>\n")
	}
	return b.String() + "</superblock>\n"
}

// mapped returns a device's blocks.
func (p xmlPool) mapped(id uint32) map[uint64]uint64 {
	m := map[uint64]uint64{}
	for _, r := range p.devices[id] {
		for i := range r.n {
			m[r.key+i] = r.data + i
		}
	}
	return m
}

// restore creates the metadata and returns the file.
func (p xmlPool) restore(t *testing.T, mib int64) string {
	t.Helper()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "xml"), filepath.Join(dir, "meta")
	if err := os.WriteFile(from, []byte(p.xml()), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(mib << 20); err != nil {
		t.Fatal(err)
	}
	testtool.Run(t, "thin_restore", "-i", from, "-o", to)
	return to
}

// randomPool returns a pool with some devices that have much in common.
func randomPool(rnd *rand.Rand, sectors int, ids []uint32, runs int, longest, gap uint64) xmlPool {
	p := xmlPool{sectors: sectors, ids: ids, devices: map[uint32][]mapRun{}}
	var first []mapRun
	key, data := rnd.Uint64N(gap), uint64(0)
	for range runs {
		n := 1 + rnd.Uint64N(longest)
		first = append(first, mapRun{key, data, n})
		key += n + rnd.Uint64N(gap)
		data += n
	}
	p.devices[ids[0]] = first
	for _, id := range ids[1:] {
		for _, r := range first {
			switch rnd.IntN(8) {
			case 0: // discarded
				continue
			case 1: // written
				r.data, data = data, data+r.n
			case 2: // written in the middle
				if half := r.n / 2; half > 0 && half+1 < r.n {
					p.devices[id] = append(p.devices[id], mapRun{r.key, r.data, half}, mapRun{r.key + half, data, 1})
					data++
					r = mapRun{r.key + half + 1, r.data + half + 1, r.n - half - 1}
				}
			}
			p.devices[id] = append(p.devices[id], r)
		}
	}
	p.dataBlocks = data + rnd.Uint64N(100)
	return p
}

// TestRestored compares pools that thin_restore made with the mappings that they were made from,
// and with thin_delta.
func TestRestored(t *testing.T) {
	testtool.Need(t, "thin_restore")
	gigabyte := 1 << 21
	for _, c := range []struct {
		name         string
		sectors      int
		ids          []uint32
		runs         int
		longest, gap uint64
		mib          int64
	}{
		{"64 KiB", 128, []uint32{1, 2, 3}, 300, 40, 9, 4},
		{"192 KiB", 384, []uint32{5, 6}, 300, 40, 9, 4},
		{"1 MiB, one block each", 2048, []uint32{0, 1}, 2000, 1, 3, 4},
		{"1 GiB", gigabyte, []uint32{7, 8, 9}, 200, 5, 5, 4},
		{"ids up to 2^24-1", 128, []uint32{0, 1, 1 << 10, 1 << 16, 1<<24 - 2, 1<<24 - 1}, 30, 9, 9, 4},
		{"300 devices", 128, seq(300), 5, 9, 9, 8},
		{"three levels", 128, []uint32{1, 2}, 1500, 60, 4, 8},
		{"far apart", 128, []uint32{1, 2}, 400, 3, 1 << 36, 4},
		{"nothing", 128, []uint32{1, 2}, 0, 1, 1, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(uint64(c.sectors), uint64(c.runs)))
			p := randomPool(rnd, c.sectors, c.ids, c.runs, c.longest, c.gap)
			file := p.restore(t, c.mib)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if faults, stats, err := check(t, b); err != nil || stats.Corruptions+stats.Leaks > 0 || stats.Devices != int64(len(c.ids)) {
				t.Errorf("check: %v, %+v, %v", faults, stats, err)
			}
			m := mustOpen(t, b, Options{})
			devices, err := m.Devices()
			if err != nil || len(devices) != len(c.ids) {
				t.Fatalf("%d devices, %v", len(devices), err)
			}
			for range 4 {
				i, j := c.ids[rnd.IntN(len(c.ids))], c.ids[rnd.IntN(len(c.ids))]
				comparePair(t, m, file, p, i, j)
			}
		})
	}
}

func seq(n uint32) (ids []uint32) {
	for i := range n {
		ids = append(ids, i*3)
	}
	return ids
}

// comparePair compares two devices block for block.
func comparePair(t *testing.T, m *Metadata, file string, p xmlPool, i, j uint32) {
	t.Helper()
	size := int64(1)
	for _, id := range []uint32{i, j} {
		end, err := mustView(t, m, id, 0, Data{}, nil).MappedEnd()
		if err != nil {
			t.Fatal(err)
		}
		size = max(size, end)
	}
	old, new := mustView(t, m, i, size, Data{}, nil), mustView(t, m, j, size, Data{}, nil)
	a, b := p.mapped(i), p.mapped(j)
	blockSize := uint64(p.sectors) * 512
	want := map[uint64]bool{} // block: whether it is mapped in new
	for k, x := range a {
		if y, ok := b[k]; !ok || x != y {
			want[k] = ok
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			want[k] = true
		}
	}
	got := map[uint64]bool{}
	for e, err := range Changed(old, new, 0, size) {
		if err != nil {
			t.Fatal(err)
		}
		for k := uint64(e.Off) / blockSize; k*blockSize < uint64(e.End()); k++ {
			got[k] = e.Kind == sparse.Data
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("devices %d and %d: %d blocks, want %d", i, j, len(got), len(want))
	}
	theirs := deltaBlocks(t, file, i, j)
	if !maps.Equal(got, theirs) {
		t.Errorf("devices %d and %d: %d blocks, thin_delta has %d", i, j, len(got), len(theirs))
	}
	count := 0
	for e, err := range new.Extents(0, size) {
		if err != nil {
			t.Fatal(err)
		}
		for k := uint64(e.Off) / blockSize; e.Kind == sparse.Data && k*blockSize < uint64(e.End()); k++ {
			if _, ok := b[k]; !ok {
				t.Fatalf("device %d: block %d is not mapped", j, k)
			}
			count++
		}
	}
	if count != len(b) {
		t.Errorf("device %d: %d blocks mapped, want %d", j, count, len(b))
	}
}

var deltaRun = regexp.MustCompile(`<(same|different|left_only|right_only) begin="(\d+)" length="(\d+)"/>`)

// deltaBlocks returns the blocks that differ according to thin_delta.
func deltaBlocks(t *testing.T, file string, i, j uint32) map[uint64]bool {
	t.Helper()
	out := testtool.Run(t, "thin_delta", "--snap1", fmt.Sprint(i), "--snap2", fmt.Sprint(j), file)
	all := map[uint64]bool{}
	for _, m := range deltaRun.FindAllStringSubmatch(out, -1) {
		begin, _ := strconv.ParseUint(m[2], 10, 64)
		n, _ := strconv.ParseUint(m[3], 10, 64)
		for k := begin; k < begin+n && m[1] != "same"; k++ {
			all[k] = m[1] != "left_only"
		}
	}
	return all
}

// TestHistoriesAgainstDelta is TestRestored for trees that share nodes.
func TestHistoriesAgainstDelta(t *testing.T) {
	testtool.Need(t, "thin_delta")
	for seed := range uint64(6) {
		h := newHistory(seed+100, []int{6, 12, 252}[seed%3], dense)
		for range 50 {
			h.step()
		}
		file := filepath.Join(t.TempDir(), "meta")
		if err := os.WriteFile(file, h.pool.Image(), 0o600); err != nil {
			t.Fatal(err)
		}
		m := mustOpen(t, h.pool.Image(), Options{})
		ids := h.pool.Devices()
		for range 8 {
			i, j := ids[h.rnd.IntN(len(ids))], ids[h.rnd.IntN(len(ids))]
			old, new := mustView(t, m, i, 400<<16, Data{}, nil), mustView(t, m, j, 400<<16, Data{}, nil)
			got := map[uint64]bool{}
			for e, err := range Changed(old, new, 0, 400<<16) {
				if err != nil {
					t.Fatal(err)
				}
				for k := e.Off >> 16; k<<16 < e.End(); k++ {
					got[uint64(k)] = e.Kind == sparse.Data
				}
			}
			if theirs := deltaBlocks(t, file, i, j); !maps.Equal(got, theirs) {
				t.Errorf("seed %d: devices %d and %d: %d blocks, thin_delta has %d", seed, i, j, len(got), len(theirs))
			}
		}
	}
}

// TestKernelPool checks the metadata of a pool that a kernel wrote, found by
// its superblock among a physical volume's bytes.
func TestKernelPool(t *testing.T) {
	b := sample.Read(t, "lvm/mixed-0.img")
	pools := 0
	magic := le.AppendUint64(nil, superblockMagic)
	for at := 0; ; at++ {
		i := bytes.Index(b[at:], magic)
		if i < 0 {
			break
		}
		at += i
		if at < 0x20 || len(b)-at < BlockSize || verifySuperblock(b[at-0x20:], 0) != nil {
			continue
		}
		img := b[at-0x20:]
		s := decodeSuperblock(img)
		img = img[:min(uint64(len(img)), s.Metadata.Blocks*BlockSize)]
		faults, stats, err := check(t, img)
		if err != nil || len(faults) > 0 || stats.Devices < 2 {
			t.Errorf("at 0x%x: %v, %+v, %v", at-0x20, faults, stats, err)
		}
		devices, err := mustOpen(t, img, Options{}).Devices()
		if err != nil || !slices.IsSortedFunc(devices, func(a, b Device) int { return int(a.ID) - int(b.ID) }) {
			t.Errorf("%v, %v", devices, err)
		}
		pools++
	}
	if pools == 0 {
		t.Error("no pool found")
	}
}
