package thin

import (
	"context"
	"testing"

	"cbt/internal/testthin"
	"cbt/sparse"
)

// TestNodesRead has a device and its snapshot differ in a few leaves, and counts the nodes read: at
// most 4 times the height of the tree for each.
func TestNodesRead(t *testing.T) {
	for _, c := range []struct {
		name    string
		written []uint64
		leaves  int64 // of both trees, that differ
	}{
		{"nothing", nil, 0},
		{"one block", []uint64{5000}, 1},
		{"the first and the last", []uint64{0, 9999}, 2},
		{"two neighbours and one far away", []uint64{100, 101, 7000}, 2},
		{"one in a hundred", every(100), 100},
		{"a run", run(3000, 4000), 48},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := testthin.New(30_000, 8000, 42)
			p.Create(1)
			for k := range uint64(10_000) {
				p.Write(1, k)
			}
			p.Snapshot(1, 2)
			for _, k := range c.written {
				p.Write(1, k)
			}
			p.Snapshot(1, 3)
			img := p.Image()
			m := mustOpen(t, img, Options{})
			old, new := mustView(t, m, 2, 10_000<<16, Data{}, nil), mustView(t, m, 3, 10_000<<16, Data{}, nil)
			opened := m.NodesRead()
			diff, err := sparse.Total(Changed(old, new, 0, old.size))
			if err != nil || diff != int64(len(c.written))<<16 {
				t.Fatalf("%d bytes changed, %v", diff, err)
			}
			changed := m.NodesRead()
			for _, v := range []*View{old, new} {
				if w, err := v.WrittenSinceCreation(context.Background(), old, new); w || err != nil {
					t.Errorf("device %d was written: %v, %v", v.dev.ID, w, err)
				}
			}
			all, limit := m.NodesRead(), 4*int64(old.height)*max(c.leaves, 1)
			t.Logf("height %d, %d leaves: %d nodes to open, %d for what changed, %d for what was written; limit %d",
				old.height, c.leaves, opened, changed-opened, all-changed, limit)
			if all > limit {
				t.Errorf("%d nodes read, limit %d", all, limit)
			}
		})
	}
}

func every(n uint64) (keys []uint64) {
	for k := n / 2; k < 10_000; k += n {
		keys = append(keys, k)
	}
	return keys
}

func run(lo, hi uint64) (keys []uint64) {
	for k := lo; k < hi; k++ {
		keys = append(keys, k)
	}
	return keys
}
