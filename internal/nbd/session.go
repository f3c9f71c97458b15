package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A connection reads requests in one goroutine. Small ones, as long as they are
// quick, are answered right there and their replies are sent together before it
// waits for more; all others go to workers.
const (
	maxWorkers = 16
	maxQueued  = 16        // requests that wait for a worker
	inlineSize = 16 << 10  // bytes of a request that may be small
	inlineTime = 40        // µs that such requests took lately
	sendAtOnce = 128 << 10 // bytes of replies that are not held back any longer
)

// session is one connection.
type session struct {
	srv  *Server
	conn net.Conn
	in   *bufio.Reader

	// From the negotiation, read-only after it.
	noZeroes, structured bool
	export, status       *export // status: whose base:allocation was chosen

	held    int64 // of srv.memory, guarded by its lock
	jobs    chan *request
	pending atomic.Int64 // in jobs or with a worker
	workers int
	wait    sync.WaitGroup
	lately  atomic.Int64 // how long small requests took, ns

	out    outbox
	closed atomic.Bool // cut
	agreed atomic.Bool // the negotiation is over
	began  time.Time
	ending atomic.Bool // no further requests are read

	// Since when data are sent and waited for, unix ns; 0: they are not.
	sending, receiving atomic.Int64
}

func newSession(s *Server, c net.Conn) *session {
	return &session{srv: s, conn: c, began: time.Now(), in: bufio.NewReaderSize(c, 16<<10)}
}

// serve returns nil when the client went as it may, or the server stops.
func (s *session) serve() error {
	err := caught(s.handshake)
	s.agreed.Store(true)
	if err == nil {
		if !s.srv.place() {
			return nil
		}
		defer func() { <-s.srv.places }()
		err = caught(s.transmit)
	}
	if err == errDone || s.ending.Load() || s.closed.Load() {
		return nil
	}
	return err
}

// stop ends reading requests; those that were read are answered.
func (s *session) stop() {
	s.ending.Store(true)
	s.conn.SetReadDeadline(time.Unix(1, 0))
}

// cut closes the connection whatever is under way.
func (s *session) cut() {
	s.closed.Store(true)
	s.conn.Close()
	s.srv.memory.wake()
}

// stalled says that the client holds memory and moved nothing for some time.
func (s *session) stalled(t time.Duration) bool {
	old := func(since int64) bool { return since != 0 && time.Since(time.Unix(0, since)) >= t }
	if !old(s.sending.Load()) && !old(s.receiving.Load()) {
		return false
	}
	s.srv.memory.mu.Lock()
	defer s.srv.memory.mu.Unlock()
	return s.held > 0
}

// transmit answers requests until the client wants no more.
func (s *session) transmit() error {
	s.jobs = make(chan *request, maxQueued)
	s.out.s = s
	defer s.drain()
	for {
		r, err := s.next()
		if err != nil {
			return err
		}
		if r.command == cmdDisc {
			freeRequest(r)
			return nil
		}
		if err := s.accept(r); err != nil {
			freeRequest(r)
			return err
		}
	}
}

// drain waits for what is under way and sends its replies. The client may have
// gone, so it gets no unlimited time to take them.
func (s *session) drain() {
	s.conn.SetWriteDeadline(time.Now().Add(s.srv.limits.Stall))
	close(s.jobs)
	s.wait.Wait()
	s.out.flush()
}

// next reads a request without its data.
func (s *session) next() (*request, error) {
	if s.in.Buffered() < requestSize {
		s.out.flush()
	}
	b, err := s.in.Peek(requestSize)
	if err != nil {
		if len(b) > 0 && err == io.EOF && !s.ending.Load() {
			return nil, errors.New("left in the middle of a request")
		}
		return nil, errDone
	}
	if magic := binary.BigEndian.Uint32(b); magic != magicRequest {
		return nil, fmt.Errorf("0x%08x is not the magic number of a request", magic)
	}
	r := newRequest(s)
	r.flags = binary.BigEndian.Uint16(b[4:])
	r.command = binary.BigEndian.Uint16(b[6:])
	r.cookie = binary.BigEndian.Uint64(b[8:])
	off := binary.BigEndian.Uint64(b[16:])
	r.n = int64(binary.BigEndian.Uint32(b[24:]))
	r.off = int64(off)
	if r.off < 0 {
		r.off = -1 // outside of every image
	}
	s.in.Discard(requestSize)
	return r, nil
}

// accept takes the data of r and has it answered. An error ends the session.
func (s *session) accept(r *request) error {
	code, why := s.judge(r)
	if r.command == cmdWrite {
		if r.n > maxRequest {
			return fmt.Errorf("a write of %d bytes", r.n)
		}
		if code != 0 {
			if err := s.skip(r.n); err != nil {
				return err
			}
		} else if err := s.payload(r); err != nil {
			return err
		}
	}
	if code != 0 {
		r.fail(code, why)
		s.out.add(r)
		return nil
	}
	if r.command == cmdRead {
		if err := s.take(r, r.n); err != nil {
			return err
		}
	}
	if r.n <= inlineSize && r.command == cmdRead && s.lately.Load() < inlineTime*1000 {
		s.do(r)
		s.out.add(r)
		return nil
	}
	return s.dispatch(r)
}

func (s *session) take(r *request, n int64) error {
	if err := s.srv.memory.take(s, n, s.out.flush); err != nil {
		return err
	}
	r.held = n
	return nil
}

// payload reads the data of a write.
func (s *session) payload(r *request) error {
	if err := s.take(r, r.n); err != nil {
		return err
	}
	if int64(s.in.Buffered()) < r.n {
		s.out.flush()
	}
	r.data = getBuffer(int(r.n))
	return s.receive(r.data.b)
}

// receive fills p, so that stalled sees how it goes on.
func (s *session) receive(p []byte) error {
	const piece = 1 << 20
	defer s.receiving.Store(0)
	for len(p) > 0 {
		s.receiving.Store(time.Now().UnixNano())
		n, err := io.ReadFull(s.in, p[:min(len(p), piece)])
		if err != nil {
			return fmt.Errorf("left in the middle of a write: %w", err)
		}
		p = p[n:]
	}
	return nil
}

// skip reads data that nobody wants.
func (s *session) skip(n int64) error {
	if int64(s.in.Buffered()) < n {
		s.out.flush()
	}
	if _, err := s.in.Discard(int(n)); err != nil {
		return fmt.Errorf("left in the middle of a write: %w", err)
	}
	return nil
}

// dispatch gives r to a worker.
func (s *session) dispatch(r *request) error {
	if n := s.pending.Add(1); n > int64(s.workers) && s.workers < maxWorkers {
		s.workers++
		s.wait.Go(s.work)
	}
	select {
	case s.jobs <- r:
	default:
		s.out.flush() // before waiting
		s.jobs <- r
	}
	return nil
}

func (s *session) work() {
	for r := range s.jobs {
		if r.command != cmdRead || !s.closed.Load() {
			s.do(r)
		}
		s.pending.Add(-1)
		s.out.add(r)
		s.out.flush()
	}
}
