package nbd

import (
	"net"
	"sync"
	"time"
)

// outbox sends replies. Whoever finds replies in it and nobody sending sends
// them all, those that come meanwhile included: one system call for many.
type outbox struct {
	s *session

	mu      sync.Mutex
	queue   []*request
	bytes   int64 // of queue
	sending bool
	failed  bool

	// Of who is sending.
	batch  []*request
	pieces net.Buffers
}

// add takes r, whose reply is complete, over. It may be sent only with the next
// flush.
func (o *outbox) add(r *request) {
	o.mu.Lock()
	o.queue = append(o.queue, r)
	o.bytes += r.size
	much := o.bytes >= sendAtOnce
	o.mu.Unlock()
	if much {
		o.flush()
	}
}

// flush returns when all that was added before was sent, or somebody else is
// about to send it.
func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sending {
		return
	}
	o.sending = true
	for len(o.queue) > 0 {
		o.batch, o.queue = o.queue, o.batch[:0]
		o.bytes = 0
		failed := o.failed
		o.mu.Unlock()
		if !failed {
			failed = o.send() != nil
		}
		for i, r := range o.batch {
			freeRequest(r)
			o.batch[i] = nil
		}
		o.mu.Lock()
		o.failed = failed
	}
	o.sending = false
}

// maxSend is how much is sent at once, so that stalled sees how it goes on.
const maxSend = 1 << 20

// send writes the replies of the batch. After an error there is no use in
// reading requests either.
func (o *outbox) send() error {
	defer o.s.sending.Store(0)
	o.pieces = o.pieces[:0]
	size := 0
	write := func() error {
		o.s.sending.Store(time.Now().UnixNano())
		rest := o.pieces
		var err error
		if len(rest) == 1 {
			_, err = o.s.conn.Write(rest[0])
		} else if len(rest) > 1 {
			_, err = rest.WriteTo(o.s.conn)
		}
		clear(o.pieces)
		o.pieces, size = o.pieces[:0], 0
		if err != nil {
			o.s.cut()
		}
		return err
	}
	for _, r := range o.batch {
		for _, p := range r.pieces {
			for len(p) > 0 {
				n := min(len(p), maxSend-size)
				o.pieces = append(o.pieces, p[:n])
				p, size = p[n:], size+n
				if size == maxSend {
					if err := write(); err != nil {
						return err
					}
				}
			}
		}
	}
	return write()
}
