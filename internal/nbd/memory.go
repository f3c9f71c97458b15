package nbd

import (
	"errors"
	"math/bits"
	"sync"
	"time"
)

var errClosed = errors.New("the connection is closed")

// memory is what the data of all requests under way may take.
type memory struct {
	limit int64
	full  func(waited time.Duration) // called now and then while somebody waits

	mu      sync.Mutex
	changed sync.Cond
	used    int64
	waiting int
}

func newMemory(limit int64) *memory {
	m := &memory{limit: limit}
	m.changed.L = &m.mu
	return m
}

// lookEvery is how often who waits for memory looks for who could give it.
const lookEvery = time.Second

// take takes n bytes for a request of ss, which holds no more than half of all.
// ready is called before it waits.
func (m *memory) take(ss *session, n int64, ready func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.fits(ss, n) {
		m.mu.Unlock()
		ready()
		m.mu.Lock()
	}
	for began := time.Now(); !m.fits(ss, n); {
		if ss.closed.Load() {
			return errClosed
		}
		m.waitForChange(time.Since(began))
	}
	m.used += n
	ss.held += n
	return nil
}

// A small request of a client that holds little finds room where others hold
// all of the rest: clients that do not take what they asked for in megabytes
// must not keep a guest from its disk.
const (
	smallRequest = 64 << 10
	smallShare   = 256 << 10 // of one client
	smallReserve = 8 << 20
)

func (m *memory) fits(ss *session, n int64) bool {
	if n <= smallRequest && ss.held+n <= smallShare && m.used+n <= m.limit+smallReserve {
		return true
	}
	return m.used+n <= m.limit && ss.held+n <= m.limit/2
}

func (m *memory) waitForChange(waited time.Duration) {
	full := m.used > m.limit/2
	m.waiting++
	wake := time.AfterFunc(lookEvery, func() {
		if full && m.full != nil {
			m.full(waited)
		}
		m.changed.Broadcast()
	})
	m.changed.Wait()
	wake.Stop()
	m.waiting--
}

// give gives back n bytes that ss took.
func (m *memory) give(ss *session, n int64) {
	m.mu.Lock()
	m.used -= n
	ss.held -= n
	wake := m.waiting > 0
	m.mu.Unlock()
	if wake {
		m.changed.Broadcast()
	}
}

// wake has all who wait look again.
func (m *memory) wake() { m.changed.Broadcast() }

// buffer is memory that is used again.
type buffer struct {
	b    []byte
	pool *sync.Pool
}

// buffers are pools of sizes of 4 KiB, 8 KiB and so on up to maxRequest.
var buffers [maxBufferBits - minBufferBits + 1]sync.Pool

const (
	minBufferBits = 12
	maxBufferBits = 25
)

// getBuffer returns n bytes, at most maxRequest, of no known content.
func getBuffer(n int) *buffer {
	class := max(0, bits.Len(uint(max(n, 1)-1))-minBufferBits)
	pool := &buffers[class]
	b, _ := pool.Get().(*buffer)
	if b == nil {
		b = &buffer{make([]byte, 1<<(minBufferBits+class)), pool}
	}
	b.b = b.b[:n]
	return b
}

func (b *buffer) free() {
	b.b = b.b[:0]
	b.pool.Put(b)
}
