package testimg

import (
	"encoding/binary"
	"fmt"
)

// Cow is an exception store of dm-snapshot that is being built, as the kernel
// fills one: chunks are taken in their order, areas left out.
type Cow struct {
	b       []byte
	chunk   int64
	next    uint64 // chunk that is taken next
	records int
}

// NewCow starts a store with chunks of so many bytes and no exceptions.
func NewCow(chunk int64) *Cow {
	c := &Cow{chunk: chunk, next: 2}
	c.grow(2)
	le := binary.LittleEndian
	copy(c.b, "SnAp")
	le.PutUint32(c.b[4:], 1)
	le.PutUint32(c.b[8:], 1)
	le.PutUint32(c.b[12:], uint32(chunk/512))
	return c
}

// Put adds an exception: chunk old of the origin holds data, at most a chunk of
// it, in the snapshot. It returns the chunk that data went to.
func (c *Cow) Put(old uint64, data []byte) (new uint64) {
	if int64(len(data)) > c.chunk {
		panic(fmt.Sprintf("testimg: %d bytes in a chunk of %d", len(data), c.chunk))
	}
	new = c.next
	c.grow(new + 1)
	copy(c.b[int64(new)*c.chunk:], data)
	if c.next++; (c.next-1)%uint64(c.perArea()+1) == 0 {
		c.next++
	}
	c.Append(old, new)
	return new
}

// Append adds any record at all, and the next area when one is full.
func (c *Cow) Append(old, new uint64) {
	at := c.Record(c.records)
	c.records++
	if next := c.Record(c.records); next%c.chunk == 0 {
		c.grow(uint64(next/c.chunk) + 1)
	}
	binary.LittleEndian.PutUint64(c.b[at:], old)
	binary.LittleEndian.PutUint64(c.b[at+8:], new)
}

// Record is the offset of the record i in the store, bytes.
func (c *Cow) Record(i int) int64 {
	return (1+int64(i/c.perArea())*int64(c.perArea()+1))*c.chunk + int64(i%c.perArea())*16
}

// Bytes is the store, which has all it needs and no more. They are not copied.
func (c *Cow) Bytes() []byte { return c.b }

func (c *Cow) perArea() int { return int(c.chunk / 16) }

func (c *Cow) grow(chunks uint64) {
	if n := int64(chunks) * c.chunk; n > int64(len(c.b)) {
		c.b = append(c.b, make([]byte, n-int64(len(c.b)))...)
	}
}
