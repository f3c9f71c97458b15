package qcow2

import (
	"container/list"
	"io"
	"sync"

	"cbt/internal/binfmt"
)

// Tables are read in slices of at most maxSlice bytes, so that the 2 MiB
// tables of 2 MiB clusters need no more memory than those of 64 KiB ones.
const (
	maxSlice    = 64 << 10
	tableCache  = 4 << 20
	decodeCache = 4 << 20 // at least two clusters, as large as they get
)

// file is an image file: where its bytes come from and how many there are.
type file struct {
	r    io.ReaderAt
	size int64
}

// table reads n bytes of a table at off, no more than limit.
func (f file) table(what string, off, n, limit uint64) ([]byte, error) {
	return binfmt.Read(f.r, f.size, what, off, n, limit)
}

// fill reads len(p) bytes of a table at off.
func (f file) fill(what string, p []byte, off uint64) error {
	return binfmt.Fill(f.r, f.size, what, p, off)
}

// cache is a set of byte slices by key, of at most limit bytes in all; those
// not used for the longest time go first. Nobody writes to a slice in it. Safe
// for concurrent use.
type cache[K comparable] struct {
	limit int

	mu    sync.Mutex
	bytes int
	items map[K]*list.Element
	order list.List // of *cached[K], latest used first
}

type cached[K comparable] struct {
	key K
	b   []byte
}

func newCache[K comparable](limit int) *cache[K] {
	return &cache[K]{limit: limit, items: make(map[K]*list.Element)}
}

// get returns the slice under key, or nil.
func (c *cache[K]) get(key K) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.items[key]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached[K]).b
}

// put adds b, which the caller gives up, unless key is there already or b is
// larger than the whole cache may be.
func (c *cache[K]) put(key K, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.items[key] != nil || len(b) > c.limit {
		return
	}
	for c.bytes+len(b) > c.limit {
		last := c.order.Back()
		c.order.Remove(last)
		old := last.Value.(*cached[K])
		delete(c.items, old.key)
		c.bytes -= len(old.b)
	}
	c.items[key] = c.order.PushFront(&cached[K]{key, b})
	c.bytes += len(b)
}

// cachedTable is table for slices that are likely to be wanted again.
func (img *Image) cachedTable(what string, off uint64, n int) ([]byte, error) {
	if b := img.tables.get(off); len(b) >= n {
		return b[:n], nil
	}
	b, err := img.file.table(what, off, uint64(n), maxSlice)
	if err != nil {
		return nil, err
	}
	img.tables.put(off, b)
	return b, nil
}
