package sparse

import (
	"fmt"
	"math"
)

// Missing returns a view of bytes that are not available: of a file that nobody has, or that was
// left out on purpose. It is as large as an image can be, because nothing tells its size. Extents
// calls all of it Data, so that nobody takes it for zeros. Reading any of it is a *MissingError,
// which names what.
func Missing(what string) View { return &missing{what} }

// IsMissing reports whether v was made by Missing.
func IsMissing(v View) bool {
	_, ok := v.(*missing)
	return ok
}

// MissingError says that bytes are not known.
type MissingError struct {
	What     string // what holds them
	Off, Len int64  // bytes of the image
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%d bytes at offset %d are unknown: they are in %s", e.Len, e.Off, e.What)
}

type missing struct{ what string }

func (m *missing) Size() int64 { return math.MaxInt64 }

func (m *missing) ReadAt(p []byte, off int64) (int, error) {
	p, eof := ClipRead(p, off, m.Size())
	if len(p) == 0 {
		return 0, eof
	}
	return 0, &MissingError{m.what, off, int64(len(p))}
}

func (m *missing) Extents(off, n int64) Seq {
	if err := CheckRange(off, n, m.Size()); err != nil {
		return Fail(err)
	}
	return Fill(Of(), off, n, Data)
}
