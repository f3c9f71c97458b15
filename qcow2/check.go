package qcow2

import (
	"context"
	"fmt"
	"io"
	"math"

	"cbt/sparse"
)

// FaultKind tells how serious a fault is.
type FaultKind = sparse.FaultKind

const (
	// Corruption is metadata that contradicts itself or the format: guest data may be wrong now, or
	// become wrong with the next write.
	Corruption = sparse.Corruption
	// Leak is space that is counted as used but is not in use; no data is lost.
	Leak = sparse.Leak
	// Note is something that a reader should know but that is not a fault of the image, such as a
	// set dirty bit or a bitmap in use.
	Note = sparse.Note
)

// Fault is one finding of a check.
type Fault struct {
	Kind   FaultKind
	Struct string // "L2 entry", "refcount table entry", "cluster"
	Off    int64  // of the entry or of the clusters, in the image file, in bytes
	Len    int64  // bytes of neighbouring clusters with the same wrong refcount; 0 for other faults
	Guest  int64  // guest offset that the entry describes, or -1
	Msg    string // what is wrong with it
	Cite   string // section and sentence of the format that it violates
}

// String returns the fault as one line, without the citation.
func (f Fault) String() string {
	guest := ""
	if f.Guest >= 0 {
		guest = fmt.Sprintf(" (guest offset 0x%x)", f.Guest)
	}
	return fmt.Sprintf("%s: %s at 0x%x%s: %s", f.Kind, f.Struct, f.Off, guest, f.Msg)
}

// CheckStats holds the counts of a check.
type CheckStats struct {
	Corruptions int64 // wrong entries, and clusters whose refcount is too small
	Leaks       int64 // clusters whose refcount is too large
	Notes       int64 // findings that are not faults

	FileSize    int64 // in bytes
	ClusterSize int64 // in bytes
	ImageEnd    int64 // end of the last cluster that is referenced or has a refcount, in bytes
	Dirty       bool  // the dirty bit is set: the format then allows wrong refcounts

	// Clusters of the active state, counted as by qemu-img check; Total is all clusters of the
	// virtual disk.
	Total, Allocated, Fragmented, Compressed int64

	L2Tables  int64 // of the active state and all snapshots, each table counted once
	Snapshots int64 // in the snapshot table
	Bitmaps   int64 // in the bitmap directory
}

// Check checks the file of an open image, as the function Check does. It may run while the image is
// read.
func (img *Image) Check(ctx context.Context, report func(Fault)) (CheckStats, error) {
	return Check(ctx, img.file.r, img.file.size, report)
}

// Check reads all metadata of the image in r, a file of size bytes. It calls report for every
// fault, from the calling goroutine; report may be nil. Check opens neither the backing nor the
// data file. It accepts images that Open refuses: encrypted ones (metadata are never encrypted),
// those marked corrupt, and those with a damaged snapshot table or bitmap directory.
//
// Leaks and corruptions mean what they mean to qemu-img check. Something that qemu-img does not
// look at is a corruption here if it violates Fault.Cite. An image with the dirty bit is judged
// like any other, after a note about the bit.
//
// The error is a *sparse.FormatError if nothing can be checked: the header is wrong, or tables lie
// outside the file. If reading r fails, the check goes on after that place, but without looking for
// leaks. The first such error is returned along with the counts. If ctx is cancelled, the error is
// its cause. The memory used stays within a small factor of the size of the image's tables.
func Check(ctx context.Context, r io.ReaderAt, size int64, report func(Fault)) (CheckStats, error) {
	c, err := newChecker(ctx, r, size, report)
	if err != nil {
		return CheckStats{}, err
	}
	for _, step := range []func(){
		c.header, c.refcountTable, c.activeL1, c.snapshots, c.encryption, c.bitmaps, c.l2Tables, c.refcounts, c.copied,
	} {
		if step(); ctx.Err() != nil {
			return c.stats, context.Cause(ctx)
		}
	}
	return c.stats, c.err
}

type checker struct {
	ctx    context.Context
	r      io.ReaderAt
	size   int64 // of the file, in bytes
	h      Header
	ext    extensions
	report func(Fault)
	stats  CheckStats
	err    error // the first failed read

	cluster int64
	end     int64 // size rounded up to a sector
	used    *tally
	blocks  []int64 // offsets of the refcount blocks, or 0, or noBlock
	l1s     []l1Table
	l2s     []l2Table
	l2At    map[int64]int // index in l2s, by offset
	walked  int64         // bytes walked of tables that may overlap, see spend

	ids          map[string]bool // of the snapshots met so far
	copiedFaults bool            // some entry has a wrong COPIED bit
}

func newChecker(ctx context.Context, r io.ReaderAt, size int64, report func(Fault)) (*checker, error) {
	h, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	// The check itself judges the snapshot table.
	sound := h
	sound.NbSnapshots, sound.SnapshotsOffset = 0, 0
	if err := sound.Validate(size); err != nil {
		return nil, err
	}
	ext, err := h.readExtensions(r, size)
	// Features come first: with unknown ones, nothing else in the image is certain.
	if sound.CryptMethod <= CryptLUKS {
		sound.CryptMethod = CryptNone // metadata are never encrypted
	}
	if err := sound.validateFeatures(ext.features, Options{AllowCorrupt: true}); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	c := &checker{
		ctx: ctx, r: r, size: size, h: h, ext: ext, report: report,
		cluster: h.ClusterSize(), end: size,
		used: newTally(), l2At: map[int64]int{},
	}
	if size <= math.MaxInt64-511 {
		c.end = roundUp(size, 512)
	}
	c.stats.FileSize, c.stats.ClusterSize = size, c.cluster
	c.stats.Total = int64(h.Size) / c.cluster
	if int64(h.Size)%c.cluster != 0 {
		c.stats.Total++
	}
	return c, nil
}

// where is the place to which a fault belongs.
type where struct {
	structure string
	off       int64
	guest     int64
}

func (c *checker) fault(k FaultKind, at where, cite, format string, args ...any) {
	c.add(Fault{Kind: k, Struct: at.structure, Off: at.off, Guest: at.guest, Cite: cite, Msg: fmt.Sprintf(format, args...)}, 1)
}

func (c *checker) corrupt(at where, cite, format string, args ...any) {
	c.fault(Corruption, at, cite, format, args...)
}

func (c *checker) add(f Fault, n int64) {
	switch f.Kind {
	case Corruption:
		c.stats.Corruptions += n
	case Leak:
		c.stats.Leaks += n
	case Note:
		c.stats.Notes += n
	}
	if c.report != nil {
		c.report(f)
	}
}
