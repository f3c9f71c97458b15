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
	"slices"
	"strconv"
	"strings"

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

	past past
	left int // partitions with numbers that are too high
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
		if t.left++; t.left == 1 {
			t.warnf("partition %d is left out, as the kernel does after %d", p.Number, maxNumber)
		}
		return
	case start >= sectors:
		t.past.begin = append(t.past.begin, p.Number)
		t.past.notes = append(t.past.notes, fmt.Sprintf("partition %d starts at sector %d, behind the end of the disk of %d", p.Number, start, sectors))
		return
	case n > sectors-start:
		t.past.cut = append(t.past.cut, p.Number)
		t.past.notes = append(t.past.notes, fmt.Sprintf("partition %d of %d sectors at %d is cut at the end of the disk of %d", p.Number, n, start, sectors))
		n = sectors - start
	}
	p.Off, p.Size = int64(start)*t.SectorSize, int64(n)*t.SectorSize
	t.Partitions = append(t.Partitions, p)
}

// maxWarnings keeps a table that is all wrong from filling a screen.
const maxWarnings = 20

func (t *Table) warnf(format string, args ...any) {
	switch {
	case slices.Contains(t.Warnings, fmt.Sprintf(format, args...)):
	case len(t.Warnings) < maxWarnings:
		t.Warnings = append(t.Warnings, fmt.Sprintf(format, args...))
	case len(t.Warnings) == maxWarnings:
		t.Warnings = append(t.Warnings, "and more")
	}
}

// past is what a table has behind the end of its disk, which is one thing to
// warn of: the disk is not whole.
type past struct {
	cut, begin []int    // numbers of partitions that are cut there, and that begin behind it
	records    bool     // records of logical partitions are behind it
	notes      []string // of each
}

// warnOfPast adds the warning, if there is something to warn of.
func (t *Table) warnOfPast(d disk) {
	if len(t.past.notes) == 1 {
		t.warnf("%s", t.past.notes[0])
	}
	if len(t.past.notes) < 2 {
		return
	}
	var parts []string
	if len(t.past.cut) > 0 {
		parts = append(parts, listed(t.past.cut)+" cut there")
	}
	if len(t.past.begin) > 0 {
		parts = append(parts, listed(t.past.begin)+" behind it")
	}
	if t.past.records {
		parts = append(parts, "more of the logical partitions may be, too")
	}
	t.warnf("the disk ends at sector %d, before its partitions do: %s", d.size/t.SectorSize, strings.Join(parts, "; "))
}

// listed is "partition 5 is", "partitions 5, 6 are", not too many.
func listed(numbers []int) string {
	if len(numbers) == 1 {
		return fmt.Sprintf("partition %d is", numbers[0])
	}
	const most = 8
	var list []string
	for _, n := range numbers[:min(len(numbers), most)] {
		list = append(list, strconv.Itoa(n))
	}
	text := "partitions " + strings.Join(list, ", ")
	if more := len(numbers) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text + " are"
}
