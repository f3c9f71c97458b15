package cow

import (
	"encoding/binary"
	"fmt"
	"io"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

const (
	exceptionSize = 16 // struct disk_exception

	// sliceSize is how many bytes of an area are read at once.
	sliceSize = 64 << 10
)

// exception is a record: chunk old of the origin lies in chunk new of the store.
type exception struct{ old, new uint64 }

// decodeException decodes exceptionSize bytes.
func decodeException(b []byte) exception {
	return exception{binary.LittleEndian.Uint64(b[0:]), binary.LittleEndian.Uint64(b[8:])}
}

// validate checks a record that does not end the table and was found at offset at.
func (e exception) validate(g geometry, at int64) error {
	switch {
	case e.new >= g.chunks():
		return recordError("new_chunk", at, e.new, fmt.Sprintf("not inside the store of %d chunks", g.chunks()))
	case (e.new-1)%(g.perArea()+1) == 0:
		return recordError("new_chunk", at, e.new, fmt.Sprintf("the place of area %d", (e.new-1)/(g.perArea()+1)))
	case e.old >= g.maxChunks():
		return recordError("old_chunk", at, e.old, "beyond the end of any origin")
	}
	return nil
}

func recordError(field string, at int64, value uint64, msg string) error {
	return &sparse.FormatError{Struct: "exception", Field: field, Off: at, Value: value, Msg: msg}
}

// geometry holds the sizes that determine the places in a store.
type geometry struct {
	size  int64 // of the store, in bytes
	chunk int64 // in bytes
}

func (g geometry) chunks() uint64  { return uint64(g.size / g.chunk) }
func (g geometry) perArea() uint64 { return uint64(g.chunk / exceptionSize) }

// maxChunks returns how many whole chunks an image of 2^63-1 bytes has.
func (g geometry) maxChunks() uint64 { return (1<<63 - 1) / uint64(g.chunk) }

// eachRecord calls visit with the records of all areas, many at a time. It stops at the record that
// ends the table, and when visit returns false. at is the offset of the first record of the call in
// the store. At most sliceSize bytes are in memory.
func (g geometry) eachRecord(r io.ReaderAt, visit func(at int64, records []byte) (bool, error)) error {
	buf := make([]byte, min(g.chunk, sliceSize))
	stride := g.chunk * (int64(g.perArea()) + 1)
	for area, at := 0, g.chunk; ; area, at = area+1, at+stride {
		what := fmt.Sprintf("exception area %d", area)
		for end := at + g.chunk; at < end; at += int64(len(buf)) {
			if err := binfmt.Fill(r, g.size, what, buf, uint64(at)); err != nil {
				return err
			}
			used := usedRecords(buf)
			if used > 0 {
				if ok, err := visit(at, buf[:used*exceptionSize]); !ok || err != nil {
					return err
				}
			}
			if used*exceptionSize < len(buf) {
				return nil
			}
		}
		at -= g.chunk
		if g.size-at < stride || g.size-at-stride < g.chunk {
			return &sparse.FormatError{Struct: what, Off: at, Msg: fmt.Sprintf("is full, and the next one is not inside the store of %d bytes", g.size)}
		}
	}
}

// usedRecords counts the records before the one that ends the table.
func usedRecords(b []byte) int {
	for i := 0; i < len(b); i += exceptionSize {
		if binary.LittleEndian.Uint64(b[i+8:]) == 0 {
			return i / exceptionSize
		}
	}
	return len(b) / exceptionSize
}
