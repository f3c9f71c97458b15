// Package partition finds the partitions of a disk: GPT with sectors of 512 and
// 4,096 bytes, by its primary copy or, when that is bad, by the backup; and MBR,
// primary and logical. It takes an io.ReaderAt and a size and only reads.
//
// Format facts are from the UEFI specification 2.10, chapter 5, and, where that
// leaves something open, what Linux does in block/partitions/efi.c and msdos.c,
// called "the kernel" below.
package partition

import (
	"errors"
	"fmt"
	"io"

	"cbt/internal/binfmt"
)

// ErrNoTable says that a disk has no partition table: neither an MBR nor, with
// it, a GPT.
var ErrNoTable = errors.New("no partition table")

// Kinds of tables.
const (
	GPT = "gpt"
	MBR = "mbr"
)

// maxNumber is the last partition that the kernel has (DISK_MAX_PARTS).
const maxNumber = 255

// Partition is a part of a disk. An extended partition, which only holds others,
// is none.
type Partition struct {
	Number int    // from 1; as the kernel counts: logical ones from 5
	Off    int64  // bytes from the start of the disk
	Size   int64  // bytes
	Type   string // GPT: a GUID in upper case; MBR: two hexadecimal digits in lower case
	Name   string // GPT only
}

// IsLVM reports whether the type says that an LVM physical volume is inside. LVM
// itself does not look at it.
func (p Partition) IsLVM() bool {
	return p.Type == "8e" || p.Type == "E6D6D379-F507-44C2-A23C-238F2A3DF928"
}

// Table is the partitions of a disk.
type Table struct {
	Kind       string // GPT or MBR
	SectorSize int64  // bytes, what the table counts in
	Partitions []Partition

	// Warnings say, one line each, what is wrong with the table and was passed
	// over: a bad primary GPT, partitions outside the disk, an unfinished chain
	// of logical ones.
	Warnings []string
}

// Options say how to read a table.
type Options struct {
	// SectorSize is that of the disk, in bytes: 512 or 4,096. With 0 a GPT is
	// looked for with both, and an MBR taken to count in 512.
	SectorSize int64
}

// Read reads the partition table of the disk in the first size bytes of r. The
// error is ErrNoTable, a *sparse.FormatError for a GPT both copies of which are
// bad, or that of r. No more than 4 MiB are read into memory.
func Read(r io.ReaderAt, size int64, opt Options) (*Table, error) {
	sizes := []int64{512, 4096}
	if opt.SectorSize != 0 {
		if opt.SectorSize != 512 && opt.SectorSize != 4096 {
			return nil, fmt.Errorf("sectors of %d bytes", opt.SectorSize)
		}
		sizes = []int64{opt.SectorSize}
	}
	if size < mbrSize {
		return nil, ErrNoTable
	}
	sector := make([]byte, mbrSize)
	if err := binfmt.Fill(r, size, "MBR", sector, 0); err != nil {
		return nil, err
	}
	mbr, ok := decodeMBR(sector)
	if !ok {
		return nil, ErrNoTable
	}
	d := disk{r, size}
	// As to the kernel, a GPT without a protective MBR is what a former use of
	// the disk has left: its backup often survives.
	if mbr.protective() {
		return d.readGPT(sizes)
	}
	return d.readMBR(mbr, sizes[0])
}

type disk struct {
	r    io.ReaderAt
	size int64 // bytes
}

// add appends a partition of n sectors at sector start. As the kernel does, it
// leaves out what begins behind the end of the disk and cuts what ends there.
func (t *Table) add(d disk, p Partition, start, n uint64) {
	sectors := uint64(d.size / t.SectorSize)
	switch {
	case p.Number > maxNumber:
		t.warnf("partition %d is left out, as the kernel does after %d", p.Number, maxNumber)
		return
	case start >= sectors:
		t.warnf("partition %d starts at sector %d, behind the end of the disk of %d", p.Number, start, sectors)
		return
	case n > sectors-start:
		t.warnf("partition %d of %d sectors at %d is cut at the end of the disk of %d", p.Number, n, start, sectors)
		n = sectors - start
	}
	p.Off, p.Size = int64(start)*t.SectorSize, int64(n)*t.SectorSize
	t.Partitions = append(t.Partitions, p)
}

// maxWarnings keeps a table that is all wrong from filling a screen.
const maxWarnings = 20

func (t *Table) warnf(format string, args ...any) {
	switch {
	case len(t.Warnings) < maxWarnings:
		t.Warnings = append(t.Warnings, fmt.Sprintf(format, args...))
	case len(t.Warnings) == maxWarnings:
		t.Warnings = append(t.Warnings, "and more")
	}
}
