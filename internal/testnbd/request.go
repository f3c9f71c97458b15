package testnbd

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// Request is a request as it is sent, without the data of a write.
func Request(flags, command uint16, cookie, off uint64, n uint32) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 28), 0x25609513)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, command)
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, off)
	return binary.BigEndian.AppendUint32(b, n)
}

// Send sends a request, and data behind it.
func (c *Client) Send(flags, command uint16, cookie, off uint64, n uint32, data []byte) error {
	_, err := c.Write(append(Request(flags, command, cookie, off, n), data...))
	return err
}

// Chunk is a part of a reply.
type Chunk struct {
	Cookie uint64
	Type   uint16 // of structured replies
	Done   bool   // the last one
	Off    int64  // of data and holes
	Data   []byte // data; of block status all behind the ID
	Hole   int64
	Err    Errno
}

// Receive reads a part of a reply; n is how many bytes of data a simple reply
// without an error has.
func (c *Client) Receive(n int) (Chunk, error) {
	c.SetReadDeadline(time.Now().Add(Patience))
	var b [20]byte
	if _, err := io.ReadFull(c.In, b[:16]); err != nil {
		return Chunk{}, err
	}
	switch magic := binary.BigEndian.Uint32(b[:]); {
	case magic == 0x67446698 && !c.Structured:
		k := Chunk{Cookie: binary.BigEndian.Uint64(b[8:]), Done: true, Err: Errno(binary.BigEndian.Uint32(b[4:]))}
		if k.Err != 0 {
			n = 0
		}
		k.Data = make([]byte, n)
		_, err := io.ReadFull(c.In, k.Data)
		return k, err
	case magic != 0x668e33ef || !c.Structured:
		return Chunk{}, fmt.Errorf("%x is no reply", b[:16])
	}
	if _, err := io.ReadFull(c.In, b[16:]); err != nil {
		return Chunk{}, err
	}
	k := Chunk{Cookie: binary.BigEndian.Uint64(b[8:]), Type: binary.BigEndian.Uint16(b[6:]), Done: b[5]&1 != 0}
	size := binary.BigEndian.Uint32(b[16:])
	if size > 33<<20 {
		return k, fmt.Errorf("a chunk of %d bytes", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c.In, body); err != nil {
		return k, err
	}
	return k, k.decode(body)
}

func (k *Chunk) decode(body []byte) error {
	switch {
	case k.Type == 0 && len(body) == 0:
	case k.Type == 1 && len(body) > 8:
		k.Off, k.Data = int64(binary.BigEndian.Uint64(body)), body[8:]
	case k.Type == 2 && len(body) == 12:
		k.Off, k.Hole = int64(binary.BigEndian.Uint64(body)), int64(binary.BigEndian.Uint32(body[8:]))
	case k.Type == 5 && len(body) >= 12 && len(body)%8 == 4:
		k.Data = body[4:]
	case k.Type>>15 != 0 && len(body) >= 6:
		k.Err = Errno(binary.BigEndian.Uint32(body))
	default:
		return fmt.Errorf("a chunk of type %d with %d bytes", k.Type, len(body))
	}
	return nil
}

// Do sends one request and waits for its whole reply. Data and holes are put
// into p, which has the bytes of a read.
func (c *Client) Do(flags, command uint16, off int64, n int, p []byte) (chunks []Chunk, err error) {
	c.cookie++
	var data []byte
	if command == 1 {
		data = p
	}
	if err := c.Send(flags, command, c.cookie, uint64(off), uint32(n), data); err != nil {
		return nil, err
	}
	want := 0
	if command == 0 {
		want = n
	}
	var failed error
	for {
		k, err := c.Receive(want)
		if err != nil {
			return chunks, err
		}
		if k.Cookie != c.cookie {
			return chunks, fmt.Errorf("a reply to request %d, not to %d", k.Cookie, c.cookie)
		}
		if k.Type == 1 || command == 0 && !c.Structured && k.Err == 0 {
			at := k.Off - off
			if !c.Structured {
				at = 0
			}
			if at < 0 || at+int64(len(k.Data)) > int64(len(p)) {
				return chunks, fmt.Errorf("%d bytes at %d are not of the request", len(k.Data), k.Off)
			}
			copy(p[at:], k.Data)
		}
		if k.Type == 2 {
			if k.Off < off || k.Off-off+k.Hole > int64(len(p)) {
				return chunks, fmt.Errorf("a hole of %d bytes at %d is not of the request", k.Hole, k.Off)
			}
			clear(p[k.Off-off:][:k.Hole])
		}
		chunks = append(chunks, k)
		if k.Err != 0 {
			failed = k.Err
		}
		if k.Done {
			return chunks, failed
		}
	}
}

// ReadAt reads with one request.
func (c *Client) ReadAt(p []byte, off int64) (int, error) {
	if _, err := c.Do(0, 0, off, len(p), p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteAt writes with one request.
func (c *Client) WriteAt(p []byte, off int64) (int, error) {
	if _, err := c.Do(0, 1, off, len(p), p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Extent is an extent with flags of base:allocation.
type Extent struct {
	Len   int64
	Flags uint32
}

// Status asks for extents.
func (c *Client) Status(flags uint16, off int64, n int) (list []Extent, err error) {
	chunks, err := c.Do(flags, 7, off, n, nil)
	if err != nil {
		return nil, err
	}
	for _, k := range chunks {
		for b := k.Data; len(b) >= 8; b = b[8:] {
			list = append(list, Extent{int64(binary.BigEndian.Uint32(b)), binary.BigEndian.Uint32(b[4:])})
		}
	}
	return list, nil
}
