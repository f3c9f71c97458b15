package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"cbt/internal/ordered"
)

// Limits bound what clients can ask of a server. A zero field is its default.
type Limits struct {
	Connections int           // that are served; further clients wait; 128
	Unserved    int           // that negotiate or wait; 1,024
	Handshake   time.Duration // from connecting to the end of negotiation; 10 s
	Hurry       time.Duration // the same, while others wait for a connection; 1 s
	Memory      int64         // data of requests under way, at least 64 MiB; 64 MiB; small requests have 8 MiB more
	Stall       time.Duration // after which a client that takes no replies may be cut; 10 s
	Grace       time.Duration // requests under way have to end; 1 s
}

func (l *Limits) fill() {
	if l.Connections <= 0 {
		l.Connections = 128
	}
	if l.Unserved <= 0 {
		l.Unserved = 1024
	}
	if l.Handshake <= 0 {
		l.Handshake = 10 * time.Second
	}
	if l.Hurry <= 0 {
		l.Hurry = time.Second
	}
	l.Memory = max(l.Memory, 2*maxRequest)
	if l.Stall <= 0 {
		l.Stall = 10 * time.Second
	}
	if l.Grace <= 0 {
		l.Grace = time.Second
	}
}

// Server offers exports. The first is also what a client gets that names none.
type Server struct {
	limits  Limits
	exports []*export
	byName  map[string]*export
	log     *limitedLog
	memory  *memory

	places chan struct{} // taken by those that are served
	done   chan struct{} // closed when the server stops

	mu       sync.Mutex
	sessions map[*session]struct{}
	closing  bool
	wait     sync.WaitGroup
}

// New returns a server of at least one export; no two may have one name. What
// goes wrong while it serves is told to log (nil: nobody), a line at a time and
// not too many.
func New(exports []Export, limits Limits, log func(line string)) (*Server, error) {
	if len(exports) == 0 {
		return nil, errors.New("no exports")
	}
	limits.fill()
	s := &Server{
		limits: limits, byName: make(map[string]*export), log: &limitedLog{print: log},
		memory: newMemory(limits.Memory), sessions: make(map[*session]struct{}),
		places: make(chan struct{}, limits.Connections), done: make(chan struct{}),
	}
	s.memory.full = s.cutStalled
	for _, e := range exports {
		x, err := newExport(e)
		if err != nil {
			return nil, err
		}
		if s.byName[x.Name] != nil {
			return nil, fmt.Errorf("two exports of the name %q", x.Name)
		}
		s.exports = append(s.exports, x)
		s.byName[x.Name] = x
	}
	if s.byName[""] == nil {
		s.byName[""] = s.exports[0]
	}
	return s, nil
}

// Serve answers the clients that l accepts until ctx is done, closes l, gives
// requests under way a moment and cuts all connections. It returns nil then,
// else why l accepts nobody any more.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer s.shutdown()
	defer l.Close()
	open := make(chan struct{}, s.limits.Connections+s.limits.Unserved)
	for pause := time.Duration(0); ; {
		select {
		case open <- struct{}{}:
		default:
			if !s.makeRoom(ctx, open) {
				return nil
			}
		}
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) || pause > time.Second {
				return err
			}
			// Out of descriptors, or the client has gone already.
			<-open
			pause = 2*pause + time.Millisecond
			time.Sleep(pause)
			continue
		}
		pause = 0
		s.wait.Go(func() {
			defer func() { <-open }()
			s.ServeConn(c)
		})
	}
}

// makeRoom takes a place in open once there is one. Clients that have not said
// for Limits.Hurry what they want do not keep others waiting. It returns false
// when ctx is done.
func (s *Server) makeRoom(ctx context.Context, open chan struct{}) bool {
	again := time.NewTicker(max(time.Millisecond, s.limits.Hurry/4))
	defer again.Stop()
	for {
		s.cutHandshakes()
		select {
		case open <- struct{}{}:
			return true
		case <-again.C:
		case <-ctx.Done():
			return false
		}
	}
}

// place waits until a client that has chosen an export may be served. It
// returns false when the server stops.
func (s *Server) place() bool {
	select {
	case s.places <- struct{}{}:
		return true
	default:
	}
	s.log.printf("%d connections: further clients wait until one of them ends", s.limits.Connections)
	select {
	case s.places <- struct{}{}:
		return true
	case <-s.done:
		return false
	}
}

// cutHandshakes ends the connections whose negotiation takes long.
func (s *Server) cutHandshakes() {
	n := 0
	for _, ss := range s.all() {
		if !ss.agreed.Load() && !ss.closed.Load() && time.Since(ss.began) >= s.limits.Hurry {
			ss.cut()
			n++
		}
	}
	if n > 0 {
		s.log.printf("%d connections cut that had not chosen an export in %v, while others wait", n, s.limits.Hurry)
	}
}

// ServeConn answers one client and closes the connection.
func (s *Server) ServeConn(c net.Conn) {
	defer c.Close()
	ss := newSession(s, c)
	if !s.add(ss) {
		return
	}
	defer s.remove(ss)
	if err := ss.serve(); err != nil {
		s.log.printf("client %s: %v", peer(c), err)
	}
}

// peer names a client; those of unix sockets have no address.
func peer(c net.Conn) string {
	if a := c.RemoteAddr(); a != nil && a.Network() != "unix" {
		return a.String()
	}
	return "of the socket"
}

func (s *Server) add(ss *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.sessions[ss] = struct{}{}
	return true
}

func (s *Server) remove(ss *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, ss)
}

// all are the sessions of this moment.
func (s *Server) all() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*session
	for ss := range s.sessions {
		list = append(list, ss)
	}
	return list
}

// shutdown lets requests under way end, within limits.
func (s *Server) shutdown() {
	s.mu.Lock()
	if !s.closing {
		close(s.done)
	}
	s.closing = true
	s.mu.Unlock()
	for _, ss := range s.all() {
		ss.stop()
	}
	ended := make(chan struct{})
	go func() {
		s.wait.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return
	case <-time.After(s.limits.Grace):
	}
	for _, ss := range s.all() {
		ss.cut()
	}
	select {
	case <-ended:
	case <-time.After(s.limits.Grace): // a read of a dead disk may never return
	}
}

// cutStalled ends the connections of clients that hold memory and move nothing.
// Who has waited for that long already does not wait as long for each of many
// that stall by turns.
func (s *Server) cutStalled(waited time.Duration) {
	limit := s.limits.Stall
	if waited >= limit {
		limit /= 10
	}
	for _, ss := range s.all() {
		if ss.stalled(limit) {
			s.log.printf("client %s: cut: it moved no data for %v while others wait for memory", peer(ss.conn), limit)
			ss.cut()
		}
	}
}

// limitedLog prints no more than some lines in a while.
type limitedLog struct {
	print func(line string)

	mu    sync.Mutex
	since time.Time
	lines int
}

// A burst of logBurst lines is printed, then that many in each logEvery.
const (
	logBurst = 10
	logEvery = 10 * time.Second
)

func (l *limitedLog) printf(format string, args ...any) {
	if l.print == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.since) > logEvery {
		if left := l.lines - logBurst; left > 0 {
			l.print(fmt.Sprintf("%d messages like these were left out", left))
		}
		l.since, l.lines = now, 0
	}
	if l.lines++; l.lines <= logBurst {
		l.print(fmt.Sprintf(format, args...))
	}
}

// caught calls f and makes a panic in it an error.
func caught(f func() error) (err error) {
	defer ordered.Caught(&err)
	return f()
}
