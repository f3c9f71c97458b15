package nbd

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cbt/internal/testnbd"
	"cbt/sparse"
)

// memImage is an image in memory whose bytes and kinds of blocks are known.
type memImage struct {
	mu    sync.RWMutex
	bytes []byte
	kinds []sparse.Kind // of blocks
	syncs atomic.Int64

	fail func(off int64) error // may be nil; may panic
}

const memBlock = 4096

func newMemImage(size int) *memImage {
	m := &memImage{bytes: make([]byte, size), kinds: make([]sparse.Kind, (size+memBlock-1)/memBlock)}
	for i := range m.kinds {
		m.kinds[i] = sparse.Hole
	}
	return m
}

func (m *memImage) Size() int64 { return int64(len(m.bytes)) }

func (m *memImage) ReadAt(p []byte, off int64) (int, error) {
	if m.fail != nil {
		if err := m.fail(off); err != nil {
			return 0, err
		}
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	p, err := sparse.ClipRead(p, off, m.Size())
	copy(p, m.bytes[off:])
	return len(p), err
}

func (m *memImage) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, m.Size()); err != nil {
		return sparse.Fail(err)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	var list []sparse.Extent
	for i := off / memBlock; i*memBlock < off+n; i++ {
		list = append(list, sparse.Extent{Off: i * memBlock, Len: memBlock, Kind: m.kinds[i]}.Clip(off, off+n))
	}
	return sparse.Coalesce(sparse.Of(list...))
}

func (m *memImage) set(off, n int64, kind sparse.Kind) {
	for i := off / memBlock; i*memBlock < off+n; i++ {
		m.kinds[i] = kind
	}
}

// writableImage is one that can be written to.
type writableImage struct{ *memImage }

func (m writableImage) WriteAt(p []byte, off int64) (int, error) {
	if m.fail != nil {
		if err := m.fail(off); err != nil {
			return 0, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if off < 0 || off+int64(len(p)) > m.Size() {
		return 0, errors.New("outside")
	}
	m.set(off, int64(len(p)), sparse.Data)
	return copy(m.bytes[off:], p), nil
}

func (m writableImage) Zero(off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if off < 0 || off+n > m.Size() {
		return errors.New("outside")
	}
	clear(m.bytes[off : off+n])
	return nil // the kind stays: data that are zero
}

func (m writableImage) Sync() error { m.syncs.Add(1); return nil }

// serve serves exports until the test ends, and returns the socket. Nothing may
// be under way when it has ended.
func serve(t testing.TB, limits Limits, log func(string), exports ...Export) (socket string, s *Server, stop func() time.Duration) {
	t.Helper()
	s, err := New(exports, limits, log)
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	stop = sync.OnceValue(func() time.Duration {
		start := time.Now()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		return time.Since(start)
	})
	t.Cleanup(func() {
		stop()
		if s.memory.used != 0 || len(s.sessions) != 0 {
			t.Errorf("%d bytes and %d sessions are left", s.memory.used, len(s.sessions))
		}
	})
	return socket, s, stop
}

func open(t testing.TB, socket, export string, structured bool) *testnbd.Client {
	t.Helper()
	c, err := testnbd.Open("unix", socket, export, structured)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
