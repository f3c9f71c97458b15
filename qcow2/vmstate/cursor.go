package vmstate

import (
	"encoding/binary"
	"fmt"
	"io"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

// windowSize is how many bytes a cursor reads at once, and the most that one peek or take can ask
// for.
const windowSize = 512 << 10

// cursor reads a file forward. Its offsets are offsets in the file.
type cursor struct {
	r      io.ReaderAt
	end    int64 // of the file
	pos    int64
	window []byte // the bytes read from start on
	start  int64
	room   []byte
}

func newCursor(r io.ReaderAt, pos, end int64) *cursor {
	return &cursor{r: r, pos: pos, end: end, room: make([]byte, min(windowSize, max(end-pos, 0)))}
}

func (c *cursor) left() int64 { return c.end - c.pos }

// peek returns the next n bytes without moving past them. They are valid until the next call.
func (c *cursor) peek(what string, n int) ([]byte, error) {
	if at := c.pos - c.start; at >= 0 && at+int64(n) <= int64(len(c.window)) {
		return c.window[at:][:n], nil
	}
	if int64(n) > c.left() {
		return nil, c.cut(what)
	}
	c.window, c.start = c.room[:min(int64(len(c.room)), c.left())], c.pos
	if err := binfmt.Fill(c.r, c.end, what, c.window, uint64(c.pos)); err != nil {
		c.window = nil
		return nil, err
	}
	return c.window[:n], nil
}

// take returns the next n bytes and moves past them.
func (c *cursor) take(what string, n int) ([]byte, error) {
	b, err := c.peek(what, n)
	if err == nil {
		c.pos += int64(n)
	}
	return b, err
}

func (c *cursor) skip(what string, n uint64) error {
	if c.pos > c.end || n > uint64(c.left()) {
		return c.cut(what)
	}
	c.pos += int64(n)
	return nil
}

func (c *cursor) u8(what string) (byte, error) {
	b, err := c.take(what, 1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

func (c *cursor) u16(what string) (uint16, error) {
	b, err := c.take(what, 2)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint16(b), nil
}

func (c *cursor) u32(what string) (uint32, error) {
	b, err := c.take(what, 4)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(b), nil
}

func (c *cursor) u64(what string) (uint64, error) {
	b, err := c.take(what, 8)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}

// counted reads a one-byte length and a text of that many bytes.
func (c *cursor) counted(what string) (string, error) {
	n, err := c.u8(what)
	if err != nil {
		return "", err
	}
	b, err := c.take(what, int(n))
	return string(b), err
}

// cut returns the error for a file that ends inside what, which starts at or before the cursor.
func (c *cursor) cut(what string) error {
	return &sparse.FormatError{Struct: what, Off: c.pos, Msg: fmt.Sprintf("cut by the end of the state at 0x%x", c.end)}
}
