// Package nbd serves images by the NBD protocol: fixed newstyle negotiation,
// simple and structured replies, base:allocation, without encryption. Every
// byte of a client is taken for hostile.
package nbd

import (
	"fmt"
	"io"
	"unicode/utf8"

	"cbt/sparse"
)

// Export is an image under a name. If View implements Writable, clients may
// write to it.
type Export struct {
	Name        string
	Description string // for people; may be empty
	View        sparse.View
}

// Writable is what an image needs besides being a sparse.View so that clients
// may write. It is safe for concurrent use; what was written is what any later
// read of it gives.
type Writable interface {
	io.WriterAt
	// Zero makes [off, off+n) read as zeros.
	Zero(off, n int64) error
	// Sync returns when all that was written before is on stable storage.
	Sync() error
}

// export is an Export as connections use it.
type export struct {
	Export
	size int64
	to   Writable // nil: read-only
}

func newExport(e Export) (*export, error) {
	switch {
	case len(e.Name) > maxName || len(e.Description) > maxName:
		return nil, fmt.Errorf("export name or description of more than %d bytes", maxName)
	case !utf8.ValidString(e.Name) || !utf8.ValidString(e.Description):
		return nil, fmt.Errorf("export name or description that is no UTF-8")
	}
	to, _ := e.View.(Writable)
	return &export{Export: e, size: e.View.Size(), to: to}, nil
}

// flags are the transmission flags. Several connections see one and the same
// image, and Sync is of all of it.
func (e *export) flags(structured bool) uint16 {
	f := uint16(sendHasFlags | sendFlush | sendCanMultiConn | sendCache)
	if structured {
		f |= sendDF
	}
	if e.to == nil {
		return f | sendReadOnly
	}
	return f | sendFUA | sendTrim | sendWriteZeroes
}
