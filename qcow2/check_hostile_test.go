package qcow2

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// holey is a file of any size with a few pieces in it, like a hostile sparse file.
type holey struct {
	size   int64
	pieces map[int64][]byte
}

func (h *holey) ReadAt(p []byte, off int64) (int, error) {
	n := min(int64(len(p)), max(0, h.size-off))
	clear(p[:n])
	for at, b := range h.pieces {
		if at < off+n && off < at+int64(len(b)) {
			if at < off {
				copy(p[:n], b[off-at:])
			} else {
				copy(p[at-off:n], b)
			}
		}
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// hostile returns a file with a version 3 header over pieces.
func hostile(clusterBits uint32, size int64, l1Offset int64, l1Size uint32, pieces map[int64][]byte) *holey {
	h := make([]byte, 120)
	copy(h, Magic)
	be := binary.BigEndian
	be.PutUint32(h[4:], 3)
	be.PutUint32(h[20:], clusterBits)
	be.PutUint32(h[36:], l1Size)
	be.PutUint64(h[40:], uint64(l1Offset))
	be.PutUint64(h[48:], 1<<clusterBits)
	be.PutUint32(h[56:], 1)
	be.PutUint32(h[96:], 4)
	be.PutUint32(h[100:], 104)
	pieces[0] = h
	return &holey{size, pieces}
}

func repeat64(n int, v func(i int) uint64) []byte {
	b := make([]byte, n*8)
	for i := range n {
		binary.BigEndian.PutUint64(b[i*8:], v(i))
	}
	return b
}

// checkWithin runs a check that must end within limit.
func checkWithin(t *testing.T, limit time.Duration, h *holey) (CheckStats, []Fault) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var faults []Fault
	stats, err := Check(ctx, h, h.size, func(f Fault) {
		if len(faults) < 1000 {
			faults = append(faults, f)
		}
	})
	if err != nil {
		t.Errorf("%v", err)
	}
	return stats, faults
}

// Every entry of the largest L1 table leads to one L2 table: 2^35 references
// in a file that holds 5 million.
func TestCheckSharedL2(t *testing.T) {
	const l1, l2, data = 2 << 16, 0x3000000, 0x3010000
	h := hostile(16, 0x3020000, l1, 4<<20, map[int64][]byte{
		l1: repeat64(4<<20, func(int) uint64 { return l2 }),
		l2: repeat64(8192, func(int) uint64 { return data }),
	})
	_, faults := checkWithin(t, time.Minute, h)
	want := "refcount 0, references 34359738368"
	if !slices.ContainsFunc(faults, func(f Fault) bool { return f.Off == data && f.Msg == want }) {
		t.Errorf("no %q at 0x%x in %v", want, data, faults[:min(len(faults), 20)])
	}
}

// Tens of thousands of snapshots have L1 tables of 32 MiB that lie over one another: reading them
// all would take terabytes.
func TestCheckOverlappingL1(t *testing.T) {
	const n, table, l1 = 60000, 0x10000, 0x800000
	h := hostile(9, l1+34<<20+n*512, 0x400, 1, map[int64][]byte{
		// Entries have 64 bytes; the last 8 are the id.
		table: repeat64(n*8, func(i int) uint64 {
			switch i % 8 {
			case 0:
				return uint64(l1 + i/8*512)
			case 1:
				return 4<<20<<32 | 8<<16
			case 4:
				return 16
			case 7:
				return uint64(i)
			}
			return 0
		}),
	})
	binary.BigEndian.PutUint32(h.pieces[0][60:], n)
	binary.BigEndian.PutUint64(h.pieces[0][64:], table)
	stats, faults := checkWithin(t, time.Minute, h)
	if stats.Snapshots != n {
		t.Errorf("%d snapshots", stats.Snapshots)
	}
	if !slices.ContainsFunc(faults, func(f Fault) bool { return strings.Contains(f.Msg, "not followed") }) {
		t.Errorf("all were followed: %v", faults[:min(len(faults), 5)])
	}
}

// A million references to clusters all over 2^55 bytes take memory only in proportion to the tables
// that hold them.
func TestCheckScattered(t *testing.T) {
	const cluster, tables, l1 = 2 << 20, 4, 4 << 20
	r := rand.New(rand.NewPCG(1, 1))
	pieces := map[int64][]byte{}
	pieces[l1] = repeat64(tables, func(i int) uint64 { return uint64(8+i) * cluster })
	for i := range int64(tables) {
		pieces[(8+i)*cluster] = repeat64(cluster/8, func(int) uint64 {
			return (1<<20 + r.Uint64N(1<<33)) * cluster
		})
	}
	h := hostile(21, 1<<55, l1, tables, pieces)
	c, err := newChecker(context.Background(), h, h.size, nil)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c.header()
	c.refcountTable()
	c.activeL1()
	c.l2Tables()
	c.used.sort()
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	if limit := int64(16 * tables * cluster); used > limit {
		t.Errorf("%d bytes for %d bytes of tables", used, tables*cluster)
	}
	t.Logf("%.1f bytes of memory for each byte of tables", float64(used)/(tables*cluster))
	runtime.KeepAlive(c)
}
