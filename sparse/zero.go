package sparse

import (
	"bytes"
	"io"
)

// IsZero reports whether every byte of p is zero. It is true for an empty p.
func IsZero(p []byte) bool {
	// The first byte is zero, and each other byte equals the one before it: memory compared with
	// itself, shifted by one byte.
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1])
}

// zeroBuf is only ever read.
var zeroBuf [256 << 10]byte

// writeZeros writes n zero bytes at off.
func writeZeros(w io.WriterAt, off, n int64) error {
	for n > 0 {
		c := min(n, int64(len(zeroBuf)))
		if err := writeFull(w, zeroBuf[:c], off); err != nil {
			return err
		}
		off, n = off+c, n-c
	}
	return nil
}

// writeFull turns a short write without an error into io.ErrShortWrite.
func writeFull(w io.WriterAt, p []byte, off int64) error {
	n, err := w.WriteAt(p, off)
	if err == nil && n != len(p) {
		err = io.ErrShortWrite
	}
	return err
}
