package cbt

import (
	"context"
	"sync"
)

// chunk is a table with its payload, and then with its data frame.
type chunk struct {
	table   table
	payload []byte
	frame   []byte
	buf     *chunkBuffers
}

type chunkBuffers struct{ payload, frame []byte }

var chunkPool = sync.Pool{New: func() any {
	return &chunkBuffers{payload: make([]byte, 0, maxPayload), frame: make([]byte, 0, maxDataFrame)}
}}

func newChunk(stream int) *chunk {
	buf := chunkPool.Get().(*chunkBuffers)
	return &chunk{table: table{stream: stream}, payload: buf.payload[:0], buf: buf}
}

func (c *chunk) release() {
	chunkPool.Put(c.buf)
	c.buf = nil
}

// compress gives a chunk its data frame.
func compress(_ context.Context, c *chunk) (*chunk, error) {
	c.table.payload = len(c.payload)
	if len(c.payload) == 0 {
		return c, nil
	}
	c.table.crc = crcOf(c.payload)
	frame, err := appendDataFrame(c.buf.frame[:0], c.payload)
	c.frame, c.buf.frame = frame, frame
	return c, err
}

// packer fills chunks exactly as section 5 of the specification says, from pieces of any size. So
// the chunks do not show how the image was cut into jobs.
type packer struct {
	stream int
	cur    *chunk
	emit   func(*chunk) error
}

func (p *packer) add(in *piece) error {
	data, old := in.data, in.old
	for _, e := range in.extents {
		for e.n > 0 {
			if p.cur == nil {
				p.cur = newChunk(p.stream)
			}
			c := p.cur
			part := e
			if e.zero {
				part.n = min(e.n, maxExtentLen)
			} else {
				part.n = min(e.n, int64(maxPayload-len(c.payload)))
			}
			joined := appendExtent(c.table.extents, part)
			if len(joined) > maxExtents {
				if err := p.flush(); err != nil {
					return err
				}
				continue
			}
			c.table.extents = joined
			if !part.zero {
				c.payload = append(c.payload, data[:part.n]...)
				data = data[part.n:]
			}
			if part.checked {
				n := part.blocks()
				c.table.old = append(c.table.old, old[:n]...)
				old = old[n:]
			}
			e.off, e.n = e.off+part.n, e.n-part.n
			if len(c.payload) == maxPayload {
				if err := p.flush(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// flush hands on the chunk that is being filled, if it holds anything.
func (p *packer) flush() error {
	if p.cur == nil {
		return nil
	}
	c := p.cur
	p.cur = nil
	return p.emit(c)
}
