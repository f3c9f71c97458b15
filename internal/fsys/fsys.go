// Package fsys finds file systems on a disk and says of each in what state its
// own metadata are: whether a journal has to be replayed first. It reads
// superblocks and the end of a log, a few hundred KiB of each file system.
//
// What it says is about the file system alone. Nothing on a disk tells what
// programs had not written yet.
package fsys

import (
	"errors"
	"fmt"
	"io"

	"cbt/internal/binfmt"
	"cbt/internal/partition"
	"cbt/sparse"
)

// State is what a file system's metadata are like.
type State string

const (
	// Settled: nothing has to be replayed. So it is after an unmount and after
	// a freeze; so it can be without either, if nothing was written for a while.
	Settled State = "settled"
	// Pending: its journal holds changes that the file system itself has not.
	// So it is while it is mounted, and after a power cut.
	Pending State = "pending"
	// Unknown: nothing tells.
	Unknown State = "unknown"
)

// System is a file system that was found.
type System struct {
	Partition int    // its number; 0: it is on the whole disk
	Kind      string // ext4, xfs, ntfs
	State     State
	Why       string // what the state was seen by
}

// Name is how a message calls it.
func (s System) Name() string {
	if s.Partition == 0 {
		return s.Kind
	}
	return fmt.Sprintf("partition %d (%s)", s.Partition, s.Kind)
}

// Find looks for file systems on a disk of size bytes and on its partitions.
// What is damaged is Unknown; the error is that of r.
func Find(r io.ReaderAt, size int64) ([]System, error) {
	table, err := partition.Read(r, size, partition.Options{})
	if err != nil {
		if !errors.Is(err, partition.ErrNoTable) && !damaged(err) {
			return nil, err
		}
		table = &partition.Table{}
	}
	var list []System
	// The boot sector of NTFS and of others looks like a partition table.
	s, err := look(io.NewSectionReader(r, 0, size), size)
	if err != nil {
		return nil, err
	}
	if s.Kind != "" {
		return []System{s}, nil
	}
	for _, p := range table.Partitions {
		s, err := look(io.NewSectionReader(r, p.Off, p.Size), p.Size)
		if err != nil {
			return list, err
		}
		if s.Kind != "" {
			s.Partition = p.Number
			list = append(list, s)
		}
	}
	return list, nil
}

// kinds look for one kind of file system each. An empty Kind says that it is
// another.
var kinds = []func(volume) (System, error){lookExt, lookXFS, lookNTFS}

func look(r io.ReaderAt, size int64) (System, error) {
	for _, kind := range kinds {
		s, err := kind(volume{r, size})
		if damaged(err) {
			s.State, s.Why, err = Unknown, err.Error(), nil
		}
		if err != nil || s.Kind != "" {
			return s, err
		}
	}
	return System{}, nil
}

// volume is what a file system lies on.
type volume struct {
	r    io.ReaderAt
	size int64
}

// read reads n bytes at off; nil if the volume ends before.
func (v volume) read(off, n uint64) ([]byte, error) {
	if !binfmt.Inside(off, n, v.size) || n > maxRead {
		return nil, nil
	}
	return binfmt.Read(v.r, v.size, "file system", off, n, maxRead)
}

// maxRead is the most that is read at once.
const maxRead = 1 << 20

// damaged is an error about what was read, not of reading.
func damaged(err error) bool {
	var format *sparse.FormatError
	return errors.As(err, &format)
}
