package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"cbt/sparse"
)

// A reply to a read has at most maxChunks pieces; holes shorter than minHole
// are no pieces of their own in it.
const (
	maxChunks = 32
	minHole   = 32 << 10
)

// maxStatus is how many extents one reply describes.
const maxStatus = 16 << 10

// request is a request of a client and, once it is done, its reply.
type request struct {
	s              *session
	flags, command uint16
	cookie         uint64
	off, n         int64

	held   int64 // of the memory of the server
	data   *buffer
	pieces [][]byte // of the reply: of heads, and of data
	size   int64    // of pieces
	heads  [maxChunks * offsetHoleSize]byte
}

var requests = sync.Pool{New: func() any { return &request{pieces: make([][]byte, 0, 4)} }}

func newRequest(s *session) *request {
	r := requests.Get().(*request)
	r.s = s
	return r
}

// freeRequest gives back what r holds.
func freeRequest(r *request) {
	if r.held > 0 {
		r.s.srv.memory.give(r.s, r.held)
	}
	if r.data != nil {
		r.data.free()
	}
	clear(r.pieces)
	r.s, r.data, r.held, r.size, r.pieces = nil, nil, 0, 0, r.pieces[:0]
	requests.Put(r)
}

// judge says whether r may be done, or the error for it and why.
func (s *session) judge(r *request) (errno, string) {
	var allowed uint16
	changes := false
	switch r.command {
	case cmdRead:
		if s.structured {
			allowed = cmdFlagDF
		}
	case cmdWrite, cmdTrim:
		changes = true
	case cmdWriteZeroes:
		allowed, changes = cmdFlagNoHole, true
	case cmdFlush, cmdCache:
	case cmdBlockStatus:
		allowed = cmdFlagReqOne
	default:
		return eInval, "unknown command"
	}
	if s.export.to != nil {
		allowed |= cmdFlagFUA
	}
	switch {
	case changes && s.export.to == nil:
		return ePerm, "the export is read-only"
	case r.flags&^allowed != 0:
		return eInval, "flags that the command does not have"
	case r.command == cmdFlush && (r.off != 0 || r.n != 0):
		return eInval, "flush is of all of the export"
	case sparse.CheckRange(r.off, r.n, s.export.size) == nil:
	case r.command == cmdWrite || r.command == cmdWriteZeroes:
		return eNoSpace, "past the end of the export"
	default:
		return eInval, "past the end of the export"
	}
	switch {
	case r.command == cmdBlockStatus && s.status != s.export:
		return eInval, "base:allocation was not negotiated"
	case r.command == cmdBlockStatus && r.n == 0:
		return eInval, "no bytes to ask about"
	case r.command == cmdRead && r.n > maxRequest && s.structured:
		return eOverflow, "more than 32 MiB"
	case r.command == cmdRead && r.n > maxRequest:
		return eInval, "more than 32 MiB"
	}
	return 0, ""
}

// do does r and makes its reply.
func (s *session) do(r *request) {
	start := time.Now()
	err := caught(func() error { return s.perform(r) })
	if r.n <= inlineSize && r.command == cmdRead {
		old := s.lately.Load()
		s.lately.Store(old + (int64(time.Since(start))-old)/8)
	}
	if err == nil {
		return
	}
	s.srv.log.printf("export %s: %s of %d bytes at %d: %v", short(s.export.Name), commandNames[r.command], r.n, r.off, err)
	switch {
	case s.ending.Load():
		r.fail(eShutdown, "the server stops")
	case r.command != cmdRead && noSpace(err):
		r.fail(eNoSpace, "no space left for what is written")
	default:
		r.fail(eIO, commandNames[r.command]+" failed")
	}
}

var commandNames = [...]string{
	cmdRead: "read", cmdWrite: "write", cmdFlush: "flush", cmdTrim: "trim", cmdCache: "cache",
	cmdWriteZeroes: "write zeroes", cmdBlockStatus: "block status",
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EFBIG) || errors.Is(err, errQuota)
}

func (s *session) perform(r *request) (err error) {
	to := s.export.to
	switch r.command {
	case cmdRead:
		if s.structured {
			return s.readChunks(r)
		}
		return s.read(r)
	case cmdBlockStatus:
		return s.blockStatus(r)
	case cmdWrite:
		_, err = to.WriteAt(r.data.b, r.off)
	case cmdWriteZeroes:
		if r.flags&cmdFlagNoHole != 0 {
			err = writeZeroes(to, r.off, r.n)
		} else {
			err = to.Zero(r.off, r.n)
		}
	case cmdTrim:
		// A hint: blocks that are only in part of it stay.
		start := (r.off + preferred - 1) &^ (preferred - 1)
		end := (r.off + r.n) &^ (preferred - 1)
		if r.off+r.n == s.export.size {
			end = s.export.size
		}
		if start < end {
			err = to.Zero(start, end-start)
		}
	}
	if err == nil && to != nil && (r.command == cmdFlush || r.flags&cmdFlagFUA != 0 && r.changes()) {
		err = to.Sync()
	}
	if err != nil {
		return err
	}
	r.ack()
	return nil
}

func (r *request) changes() bool {
	return r.command == cmdWrite || r.command == cmdWriteZeroes || r.command == cmdTrim
}

var zeros [256 << 10]byte

// writeZeroes stores zeros.
func writeZeroes(to Writable, off, n int64) error {
	for n > 0 {
		part := min(n, int64(len(zeros)))
		if _, err := to.WriteAt(zeros[:part], off); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// read makes a simple reply.
func (s *session) read(r *request) error {
	r.data = getBuffer(int(r.n))
	if err := s.fill(r.data.b, r.off); err != nil {
		return err
	}
	r.simple(0)
	r.add(r.data.b)
	return nil
}

func (s *session) fill(p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	n, err := sparse.ReadFull(s.export.View, p, off)
	if err != nil {
		return fmt.Errorf("at %d: %w", off+int64(n), err)
	}
	return nil
}

// readChunks makes a structured reply: data, and holes where there are zeros.
func (s *session) readChunks(r *request) error {
	if r.n == 0 {
		r.ack()
		return nil
	}
	if r.n <= minHole || r.flags&cmdFlagDF != 0 {
		r.data = getBuffer(int(r.n))
		if err := s.fill(r.data.b, r.off); err != nil {
			return err
		}
		r.content(sparse.Extent{Off: r.off, Len: r.n, Kind: sparse.Data}, r.data.b, 0, true)
		return nil
	}
	var list [maxChunks]sparse.Extent
	chunks, size, err := s.chunks(list[:0], r)
	if err != nil {
		return err
	}
	r.data = getBuffer(int(size))
	rest := r.data.b
	for i, c := range chunks {
		var p []byte
		if c.Kind == sparse.Data {
			p, rest = rest[:c.Len], rest[c.Len:]
			if err := s.fill(p, c.Off); err != nil {
				return err
			}
		}
		r.content(c, p, i, i == len(chunks)-1)
	}
	return nil
}

// chunks parts the bytes of r in data and holes, as few as cap(list), and
// returns how many bytes of data there are.
func (s *session) chunks(list []sparse.Extent, r *request) (_ []sparse.Extent, size int64, err error) {
	for e, err := range s.export.View.Extents(r.off, r.n) {
		if err != nil {
			return nil, 0, err
		}
		kind := sparse.Data
		if e.Kind.ReadsZero() && e.Len >= minHole {
			kind = sparse.Hole
		}
		last := len(list) - 1
		switch {
		case last >= 0 && list[last].Kind == kind:
			list[last].Len += e.Len
		case last+1 < cap(list):
			list = append(list, sparse.Extent{Off: e.Off, Len: e.Len, Kind: kind})
		default:
			list[last].Len += e.Len
			list[last].Kind = sparse.Data
		}
	}
	at := r.off
	for _, c := range list {
		if c.Off != at {
			break
		}
		at = c.End()
		if c.Kind == sparse.Data {
			size += c.Len
		}
	}
	if at != r.off+r.n {
		return nil, 0, fmt.Errorf("the extents of the image leave something out at %d", at)
	}
	return list, size, nil
}

// blockStatus makes the reply to a question about extents. What is known to
// read as zeros is a hole, as qemu-nbd has it: nothing is stored for a zero flag.
func (s *session) blockStatus(r *request) error {
	most := maxStatus
	if r.flags&cmdFlagReqOne != 0 {
		most = 1
	}
	b := binary.BigEndian.AppendUint32(nil, metaID)
	last := len(b) // where the last one is
	for e, err := range s.export.View.Extents(r.off, r.n) {
		if err != nil {
			return err
		}
		var state uint32
		if e.Kind.ReadsZero() {
			state = stateZero | stateHole
		}
		if len(b) > last && binary.BigEndian.Uint32(b[last+4:]) == state {
			n := binary.BigEndian.Uint32(b[last:])
			binary.BigEndian.PutUint32(b[last:], n+uint32(e.Len)) // as long as r.n at most
			continue
		}
		if most == 0 {
			break
		}
		most--
		last = len(b)
		b = binary.BigEndian.AppendUint32(b, uint32(e.Len))
		b = binary.BigEndian.AppendUint32(b, state)
	}
	if len(b) == 4 {
		return errors.New("the image has no extents there")
	}
	r.chunk(r.heads[:chunkHeaderSize], chunkDone, chunkBlockStatus, len(b))
	r.add(r.heads[:chunkHeaderSize])
	r.add(b)
	return nil
}
