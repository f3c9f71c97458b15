// Package testnbd is a plain NBD client for tests and benchmarks, which says
// whatever it is told to: libnbd is too polite for many of them.
package testnbd

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// Patience is how long a client waits for an answer.
const Patience = 20 * time.Second

// Client is a connection to a server.
type Client struct {
	net.Conn
	In         *bufio.Reader
	Structured bool
	Size       int64  // of the export
	Flags      uint16 // of the export
	cookie     uint64
}

// Errno is an error number that a server replied with.
type Errno uint32

func (e Errno) Error() string { return fmt.Sprintf("NBD error %d", uint32(e)) }

// Dial connects, and shakes hands with these flags; 3 is what all clients send.
func Dial(network, address string, flags uint32) (*Client, error) {
	conn, err := net.DialTimeout(network, address, Patience)
	if err != nil {
		return nil, err
	}
	c := &Client{Conn: conn, In: bufio.NewReaderSize(conn, 256<<10)}
	if err := c.hello(flags); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *Client) hello(flags uint32) error {
	c.SetReadDeadline(time.Now().Add(Patience))
	var b [18]byte
	if _, err := io.ReadFull(c.In, b[:]); err != nil {
		return err
	}
	if string(b[:16]) != "NBDMAGICIHAVEOPT" {
		return fmt.Errorf("the server says %q", b)
	}
	_, err := c.Write(binary.BigEndian.AppendUint32(nil, flags))
	return err
}

// Open connects to an export, with structured replies and base:allocation if
// structured.
func Open(network, address, export string, structured bool) (*Client, error) {
	c, err := Dial(network, address, 3)
	if err != nil {
		return nil, err
	}
	if err := c.Go(export, structured); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Go chooses an export.
func (c *Client) Go(export string, structured bool) error {
	if structured {
		if _, err := c.Option(8, nil); err != nil {
			return err
		}
		if _, err := c.Option(10, Query(export, "base:allocation")); err != nil {
			return err
		}
		c.Structured = true
	}
	replies, err := c.Option(7, append(String(export), 0, 0))
	if err != nil {
		return err
	}
	for _, r := range replies {
		if r.Type == 3 && len(r.Data) == 12 {
			c.Size = int64(binary.BigEndian.Uint64(r.Data[2:]))
			c.Flags = binary.BigEndian.Uint16(r.Data[10:])
		}
	}
	return nil
}

// OptionReply is a reply to an option.
type OptionReply struct {
	Type uint32
	Data []byte
}

func (r OptionReply) Error() string { return fmt.Sprintf("reply 0x%x: %s", r.Type, r.Data) }

// Option sends an option and returns all replies to it; an OptionReply as the
// error is the server's refusal.
func (c *Client) Option(option uint32, data []byte) ([]OptionReply, error) {
	if _, err := c.Write(Option(option, data)); err != nil {
		return nil, err
	}
	var replies []OptionReply
	for {
		c.SetReadDeadline(time.Now().Add(Patience))
		var b [20]byte
		if _, err := io.ReadFull(c.In, b[:]); err != nil {
			return replies, err
		}
		n := binary.BigEndian.Uint32(b[16:])
		if binary.BigEndian.Uint64(b[:]) != 0x3e889045565a9 || binary.BigEndian.Uint32(b[8:]) != option || n > 1<<20 {
			return replies, fmt.Errorf("%x is no reply to option %d", b, option)
		}
		r := OptionReply{binary.BigEndian.Uint32(b[12:]), make([]byte, n)}
		if _, err := io.ReadFull(c.In, r.Data); err != nil {
			return replies, err
		}
		switch {
		case r.Type == 1:
			return replies, nil
		case r.Type>>31 != 0:
			return replies, r
		}
		replies = append(replies, r)
	}
}

// Option is an option as it is sent.
func Option(option uint32, data []byte) []byte {
	b := append([]byte("IHAVEOPT"), 0, 0, 0, 0)
	binary.BigEndian.PutUint32(b[8:], option)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(data))), data...)
}

// String is a string with its length before it.
func String(s string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...)
}

// Query is the data of the options about metadata contexts.
func Query(export string, queries ...string) []byte {
	b := binary.BigEndian.AppendUint32(String(export), uint32(len(queries)))
	for _, q := range queries {
		b = append(b, String(q)...)
	}
	return b
}

// Hear is a client that only listens to what a server has said.
func Hear(r io.Reader, structured bool) *Client {
	return &Client{Conn: deaf{}, In: bufio.NewReader(r), Structured: structured}
}

// deaf has no deadlines; nothing else of it is used.
type deaf struct{ net.Conn }

func (deaf) SetReadDeadline(time.Time) error { return nil }

// Skip passes over a negotiation up to the end of a successful GO.
func (c *Client) Skip() error {
	if _, err := c.In.Discard(18); err != nil {
		return err
	}
	for {
		var b [20]byte
		if _, err := io.ReadFull(c.In, b[:]); err != nil {
			return err
		}
		if _, err := c.In.Discard(int(binary.BigEndian.Uint32(b[16:]))); err != nil {
			return err
		}
		if binary.BigEndian.Uint32(b[8:]) == 7 && binary.BigEndian.Uint32(b[12:]) == 1 {
			return nil
		}
	}
}
