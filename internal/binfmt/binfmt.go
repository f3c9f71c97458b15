// Package binfmt has the bounded reads that every parser needs: no length
// that comes from a file reaches make before it was checked against a limit
// and against the size of the file.
package binfmt

import (
	"fmt"
	"io"

	"cbt/sparse"
)

// Inside reports whether [off, off+n) lies in a file of size bytes. It does
// not overflow, whatever the values.
func Inside(off, n uint64, size int64) bool {
	return size >= 0 && off <= uint64(size) && n <= uint64(size)-off
}

// Fill reads len(p) bytes at off, which must lie inside a file of size bytes.
// what names the structure in the *sparse.FormatError that says they do not;
// errors of r itself are returned with what and off in front.
func Fill(r io.ReaderAt, size int64, what string, p []byte, off uint64) error {
	if !Inside(off, uint64(len(p)), size) {
		return pastEnd(what, off, uint64(len(p)), size)
	}
	_, err := sparse.ReadFull(r, p, int64(off))
	switch {
	case err == io.ErrUnexpectedEOF:
		return &sparse.FormatError{Struct: what, Off: int64(off), Msg: fmt.Sprintf("%d bytes are not there: the file became shorter than %d bytes", len(p), size)}
	case err != nil:
		return fmt.Errorf("%s at 0x%x: %w", what, off, err)
	}
	return nil
}

// Read allocates and reads n bytes at off, after checking that n is at most
// limit and that they lie inside a file of size bytes. Errors as for Fill.
func Read(r io.ReaderAt, size int64, what string, off, n, limit uint64) ([]byte, error) {
	if n > limit {
		return nil, &sparse.FormatError{Struct: what, Off: offset(off), Msg: fmt.Sprintf("%d bytes are more than the limit of %d", n, limit)}
	}
	if !Inside(off, n, size) {
		return nil, pastEnd(what, off, n, size)
	}
	p := make([]byte, n)
	return p, Fill(r, size, what, p, off)
}

func pastEnd(what string, off, n uint64, size int64) error {
	return &sparse.FormatError{Struct: what, Off: offset(off), Msg: fmt.Sprintf("%d bytes at 0x%x are not inside the file of %d bytes", n, off, size)}
}

// offset is off for FormatError.Off, which a value past 2^63 must not turn
// into some other offset.
func offset(off uint64) int64 {
	if int64(off) < 0 {
		return -1
	}
	return int64(off)
}
