package qcow2

import (
	"context"
	"fmt"
	"io"
	"math"

	"cbt/sparse"
)

// FaultKind says how bad a fault is.
type FaultKind = sparse.FaultKind

const (
	// Corruption is metadata that contradicts itself or the format: guest data
	// may be wrong now or become wrong with the next write.
	Corruption = sparse.Corruption
	// Leak is space that is counted as used and is not: nothing is lost.
	Leak = sparse.Leak
	// Note is something that a reader should know and that is no fault of the
	// image: it is dirty, a bitmap is in use.
	Note = sparse.Note
)

// Fault is one finding of a check.
type Fault struct {
	Kind   FaultKind
	Struct string // "L2 entry", "refcount table entry", "cluster"
	Off    int64  // byte offset in the image file: of the entry, or of the clusters
	Len    int64  // bytes of clusters that have one and the same wrong refcount, else 0
	Guest  int64  // guest offset that the entry describes, -1 if there is none
	Msg    string // what is wrong with it
	Cite   string // section and sentence of the format that it breaks
}

// String is one line without the citation.
func (f Fault) String() string {
	guest := ""
	if f.Guest >= 0 {
		guest = fmt.Sprintf(" (guest offset 0x%x)", f.Guest)
	}
	return fmt.Sprintf("%s: %s at 0x%x%s: %s", f.Kind, f.Struct, f.Off, guest, f.Msg)
}

// CheckStats is what a check counted.
type CheckStats struct {
	Corruptions int64 // wrong entries and clusters whose refcount is too small
	Leaks       int64 // clusters whose refcount is too large
	Notes       int64 // what is odd and no fault

	FileSize    int64 // bytes
	ClusterSize int64 // bytes
	ImageEnd    int64 // end of the last cluster that is referenced or has a refcount
	Dirty       bool  // the dirty bit is set: refcounts may be wrong by definition

	// Of the active state, as qemu-img check counts them; Total is the clusters
	// of the virtual disk.
	Total, Allocated, Fragmented, Compressed int64

	L2Tables  int64 // different ones, of the active state and all snapshots
	Snapshots int64 // in the snapshot table
	Bitmaps   int64 // in the bitmap directory
}

// Check is the function Check on the file of an open image. It may run while
// the image is read.
func (img *Image) Check(ctx context.Context, report func(Fault)) (CheckStats, error) {
	return Check(ctx, img.file.r, img.file.size, report)
}

// Check reads all metadata of the image in r, a file of size bytes, and
// reports every fault to report, which may be nil, from the calling goroutine.
// It opens neither backing nor data file and takes images that Open refuses:
// encrypted ones (metadata never are), those marked corrupt, and those with a
// damaged snapshot table or bitmap directory.
//
// Leaks and corruptions are what qemu-img check means by them; what it does
// not look at is a corruption here if Fault.Cite forbids it. An image with the
// dirty bit is judged like any other, after a note that says so.
//
// The error is a *sparse.FormatError if there is no image that could be
// checked: a header that is wrong, or tables that are not inside the file. If
// r fails, the check goes on behind it, without looking for leaks, and the
// first such error is returned with what was counted. Memory is within a small factor of the size of the
// image's tables.
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
	size   int64 // of the file
	h      Header
	ext    extensions
	report func(Fault)
	stats  CheckStats
	err    error // first failed read

	cluster int64
	end     int64 // size, rounded up to a sector
	used    *tally
	blocks  []int64 // offsets of the refcount blocks, 0 or noBlock
	l1s     []l1Table
	l2s     []l2Table
	l2At    map[int64]int // by offset: index in l2s
	walked  int64         // bytes of tables that may overlap, see spend

	ids          map[string]bool // of the snapshots met so far
	copiedFaults bool            // some entry's COPIED bit is wrong
}

func newChecker(ctx context.Context, r io.ReaderAt, size int64, report func(Fault)) (*checker, error) {
	h, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	// The snapshot table is judged by the check itself.
	sound := h
	sound.NbSnapshots, sound.SnapshotsOffset = 0, 0
	if err := sound.Validate(size); err != nil {
		return nil, err
	}
	ext, err := h.readExtensions(r, size)
	// Features come first: of an image with unknown ones nothing else is sure.
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

// where is the place that a fault is reported for.
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
