package cow

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/bits"

	"cbt/sparse"
)

var errChanged = fmt.Errorf("the exception store %w", sparse.ErrChanged)

// DefaultMaxTable is the default limit of a table's memory in bytes. It is enough for 256 GiB of 4
// KiB chunks, even if none follow one another.
const DefaultMaxTable = 1 << 30

// Options set how to open a store. The zero value suits most uses.
type Options struct {
	// MaxTable limits the memory that the table takes, in bytes; 0 means DefaultMaxTable. A longer
	// table is refused.
	MaxTable int64
}

// Store is an exception store as it was when it was opened. It is safe for concurrent use if its
// io.ReaderAt is.
//
// It keeps 16 bytes for each run of up to 256 records that follow one another in the origin and in
// the store. That is at most the size of the table on disk, which takes 1/256 of the chunks with
// chunks of 4 KiB. While the store is being opened it may take 2.25 times as much.
type Store struct {
	r        io.ReaderAt
	header   Header
	geometry geometry
	shift    uint // a chunk is 1<<shift bytes
	table    table
	records  int
	sum      [sha256.Size]byte // of the records as stored
}

// Open reads the header and the whole table of the store in the first size bytes of r. Bad input is
// a *sparse.FormatError; errors.Is finds ErrUninitialized and ErrInvalidated in it.
//
// The kernel writes below the page cache, so a store in use has to be read with O_DIRECT. If chunks
// have at least 4,096 bytes, reads of r have sizes and offsets that are multiples of 4,096.
func Open(r io.ReaderAt, size int64, opt Options) (*Store, error) {
	if opt.MaxTable == 0 {
		opt.MaxTable = DefaultMaxTable
	}
	h, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	s := &Store{
		r: r, header: h,
		geometry: geometry{size, h.chunkBytes()},
		shift:    uint(bits.TrailingZeros64(uint64(h.chunkBytes()))),
	}
	// Otherwise a table that repeats the same records would fill the memory before it is found out.
	look := firstLook
	sum := sha256.New()
	err = s.geometry.eachRecord(r, func(at int64, records []byte) (bool, error) {
		sum.Write(records)
		for i := 0; i < len(records); i += exceptionSize {
			e := decodeException(records[i:])
			if err := e.validate(s.geometry, at+int64(i)); err != nil {
				return false, err
			}
			s.table.add(e)
			if int64(len(s.table)) > opt.MaxTable/runSize {
				return false, tooLong(at+int64(i), opt.MaxTable)
			}
			s.records++
		}
		if len(s.table) >= look {
			look = 2 * len(s.table)
			return true, s.table.sortNew()
		}
		return true, nil
	})
	if err == nil {
		err = s.table.sort()
	}
	if err != nil {
		return nil, err
	}
	sum.Sum(s.sum[:0])
	return s, nil
}

// Header returns the header of the store.
func (s *Store) Header() Header { return s.header }

// ChunkSize returns the size of a chunk in bytes, as given by the store. The volume group's text
// plays no part in it.
func (s *Store) ChunkSize() int64 { return s.geometry.chunk }

// Len returns the number of records: chunks that differ from the origin, or once did.
func (s *Store) Len() int { return s.records }

// Recheck reads header and table again. It returns an error that is sparse.ErrChanged unless
// everything that was there is still there. More records may have been added. That happens to the
// store of a snapshot in use whenever its origin is written to, and does not change the snapshot's
// content. See View.Recheck for a store that must not have been touched at all.
func (s *Store) Recheck() error {
	_, err := s.recheck()
	return err
}

// recheck does what Recheck does, and also reports whether records were added.
func (s *Store) recheck() (grown bool, err error) {
	// The header decides whether the table is valid at all, so it is checked before and after.
	if err := s.recheckHeader(); err != nil {
		return false, err
	}
	left, hash := s.records, sha256.New()
	err = s.geometry.eachRecord(s.r, func(_ int64, records []byte) (bool, error) {
		n := min(left, len(records)/exceptionSize)
		hash.Write(records[:n*exceptionSize])
		left -= n
		grown = n*exceptionSize < len(records)
		return !grown, nil
	})
	var bad *sparse.FormatError
	switch {
	case errors.As(err, &bad):
		return false, fmt.Errorf("%w: %w", errChanged, err)
	case err != nil:
		return false, err
	case left > 0:
		return false, fmt.Errorf("%w: %d of %d records are gone", errChanged, left, s.records)
	case !s.holds(hash):
		return false, fmt.Errorf("%w: exception table", errChanged)
	}
	return grown, s.recheckHeader()
}

func (s *Store) holds(h hash.Hash) bool { return [sha256.Size]byte(h.Sum(nil)) == s.sum }

func (s *Store) recheckHeader() error {
	now, err := readHeader(s.r, s.geometry.size)
	var bad *sparse.FormatError
	switch {
	case errors.As(err, &bad):
		return fmt.Errorf("%w: %w", errChanged, err)
	case err != nil:
		return err
	case now != s.header:
		return fmt.Errorf("%w: exception store header", errChanged)
	}
	return nil
}
