package sparse

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Plain returns the image of size bytes that r holds from offset 0, as one Data extent. It is safe
// for concurrent use if r is. If r ends before size, reads past its end fail with
// io.ErrUnexpectedEOF.
func Plain(r io.ReaderAt, size int64) View { return &plain{r, size} }

type plain struct {
	r    io.ReaderAt
	size int64
}

func (v *plain) Size() int64 { return v.size }

func (v *plain) ReadAt(p []byte, off int64) (int, error) { return readInside(v.r, p, off, v.size) }

func (v *plain) Extents(off, n int64) Seq {
	if err := CheckRange(off, n, v.size); err != nil {
		return Fail(err)
	}
	return Fill(Of(), off, n, Data)
}

// readInside reads from the first size bytes of r. Their end is io.EOF. If r ends before that, the
// error is io.ErrUnexpectedEOF.
func readInside(r io.ReaderAt, p []byte, off, size int64) (int, error) {
	p, eof := ClipRead(p, off, size)
	if len(p) == 0 {
		return 0, eof
	}
	n, err := ReadFull(r, p, off)
	if err == nil {
		err = eof
	}
	return n, err
}

// Raw is the View of a regular file or a block device. It is safe for concurrent use. It is meant
// for files that nobody writes to. Its size is that at the moment it was opened. If the file has
// become shorter since, reads fail with io.ErrUnexpectedEOF. Data written since may be missing from
// Extents.
//
// A file's holes are those that its filesystem reports, which need not be all. If it reports none,
// and on block devices, everything is Data. Space that is allocated but not written may be called
// either.
type Raw struct {
	f    *os.File
	size int64
	maps bool // the filesystem tells data from holes
}

// OpenRaw opens the view of f, which must be a regular file or a block device open for reading.
// Anything else is refused. The caller closes f when done with the view. The file offset of f
// moves.
//
// A regular file is synced, because a filesystem may report a hole where data waits to be written
// (openzfs#15526).
func OpenRaw(f *os.File) (*Raw, error) {
	size, device, err := fileSize(f)
	if err != nil {
		return nil, err
	}
	v := &Raw{f: f, size: size}
	if !device && size > 0 {
		if v.maps, err = syncForMap(f); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// Size returns the size of the file or device in bytes when it was opened.
func (v *Raw) Size() int64 { return v.size }

// ReadAt implements io.ReaderAt.
func (v *Raw) ReadAt(p []byte, off int64) (int, error) { return readInside(v.f, p, off, v.size) }

// Extents yields Data and Hole as the filesystem reports them at this moment.
func (v *Raw) Extents(off, n int64) Seq {
	if err := CheckRange(off, n, v.size); err != nil {
		return Fail(err)
	}
	if !v.maps {
		return Fill(Of(), off, n, Data)
	}
	return Coalesce(v.seek(off, off+n))
}

func (v *Raw) seek(pos, end int64) Seq {
	return func(yield func(Extent, error) bool) {
		for pos := pos; pos < end; {
			data, hole, err := v.nextData(pos)
			if err != nil {
				yield(Extent{}, err)
				return
			}
			data, hole = min(data, end), min(hole, end)
			if data > pos && !yield(Extent{pos, data - pos, Hole}, nil) {
				return
			}
			if hole > data && !yield(Extent{data, hole - data, Data}, nil) {
				return
			}
			pos = hole
		}
	}
}

// fileSize returns the size of a regular file or a block device, and whether it is a device.
func fileSize(f *os.File) (size int64, device bool, err error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	switch mode := fi.Mode(); {
	case mode.IsRegular():
		return fi.Size(), false, nil
	case mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0:
		size, err = deviceSize(f)
		return size, true, err
	default:
		return 0, false, fmt.Errorf("%s: %s, not a regular file or a block device", f.Name(), fileType(mode))
	}
}

func fileType(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeCharDevice != 0:
		return "a character device"
	}
	return "a special file"
}
