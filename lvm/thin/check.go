package thin

import (
	"context"
	"fmt"
	"io"

	"cbt/internal/lru"
	"cbt/sparse"
)

// FaultKind tells how serious a fault is.
type FaultKind = sparse.FaultKind

const (
	// Corruption is metadata that contradict themselves or the format: blocks of devices are lost
	// or wrong, or become so with the next write.
	Corruption = sparse.Corruption
	// Leak is space that is counted as used but is not in use; no data is lost.
	Leak = sparse.Leak
	// Note is something that a reader should know but that is not a fault by itself: for example,
	// the pool needs checking, or something could not be examined.
	Note = sparse.Note
)

// Fault is one finding of a check.
type Fault struct {
	Kind   FaultKind
	Struct string // "thin superblock", "thin mapping tree of device 3", "data block"
	Block  uint64 // the metadata block that contains it; for Struct "data block", a data block
	Blocks uint64 // for wrong counts: how many blocks from Block on have the same one; otherwise 0
	Device int64  // ID of the thin device, or -1

	// First and Last are the keys affected, if Keys is set. They are blocks of the device in a
	// mapping tree, IDs of devices in the trees of devices, and blocks in a space map. Last is
	// included.
	Keys        bool
	First, Last uint64

	Msg  string // what is wrong with it
	Cite string // the place in Linux that defines the rule
}

// String returns the fault as one line, without the citation.
func (f Fault) String() string {
	where := fmt.Sprintf("%s: %s", f.Kind, f.Struct)
	if f.Blocks != 0 {
		where += fmt.Sprintf(" %d", f.Block)
		if f.Blocks > 1 {
			where += fmt.Sprintf(" to %d", f.Block+f.Blocks-1)
		}
	} else if f.Block != noBlock {
		where += fmt.Sprintf(", block %d", f.Block)
	}
	if f.Keys {
		where += fmt.Sprintf(" (keys %d to %d)", f.First, f.Last)
	}
	return where + ": " + f.Msg
}

// CheckStats holds the counts of a check.
type CheckStats struct {
	Corruptions int64 // each block of a run with one wrong count counts
	Leaks       int64
	Notes       int64 // findings that are not faults

	Superblock     Superblock
	Devices        int64  // of the pool, without those of a metadata snapshot
	Nodes          int64  // nodes of all trees, each counted once
	Mappings       int64  // entries of the leaves of mapping trees, each leaf counted once
	MetadataBlocks uint64 // total number, of 4096 bytes each
	MetadataUsed   uint64 // how many of these something refers to
	DataBlocks     uint64 // total number, of DataBlockSize bytes each
	DataUsed       uint64 // how many of these a device maps
}

// Check reads all metadata of a pool in r, a device or file of size bytes. It calls report for
// every fault, from the calling goroutine; report may be nil. It finds what thin_check finds.
// Besides, it finds cycles, wrong fields of the superblock under a right checksum, keys outside
// their parent's range, and data blocks that a device maps twice. Each node is judged once, however
// many trees share it. Another tree that is affected is named with its keys. The pool must not be
// in use.
//
// The error is ErrUnformatted, or a *sparse.FormatError if there is no superblock to begin with. If
// reading r fails or ctx is cancelled, the check ends with that error.
//
// Memory is 8 bytes for each metadata block, at most 32 MiB. Counting data blocks takes at most
// another 26 MiB, for 4 Mi blocks at a time; the leaves are read once more for each 4 Mi data
// blocks in use.
func Check(ctx context.Context, r io.ReaderAt, size int64, report func(Fault)) (CheckStats, error) {
	c := &checker{ctx: ctx, report: report}
	c.m = &Metadata{dev: newDevice(r, size), nodes: lru.New[nodeKey, node](1 << 20)}
	if err := c.superblock(); err != nil {
		return CheckStats{}, err
	}
	for _, step := range []func() error{c.heldSuperblock, c.trees, c.spaceMaps, c.metadataCounts, c.dataCounts, c.mappedTwice} {
		if err := step(); err != nil {
			return c.stats, err
		}
	}
	return c.stats, nil
}

type checker struct {
	ctx    context.Context
	m      *Metadata // only used to read and verify
	report func(Fault)
	stats  CheckStats

	pool Superblock
	held *Superblock

	blocks *blockTable // of the metadata
	path   []uint64    // blocks from the root to the current place of the walk
	bufs   [][]byte    // one for each level of path
	spread spread      // of the data blocks
	broken bool        // some part of the trees could not be read, so counts may be too low
	// brokenMap tells, for the metadata and the data space map, whether it could not be read.
	brokenMap [2]bool
	// suspects are data blocks that are mapped at different keys.
	suspects        []uint64
	tooManySuspects bool

	unusable bool // the superblock contradicts itself: mappings cannot be judged
}

func (c *checker) add(f Fault) {
	n := int64(max(f.Blocks, 1))
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

func (c *checker) note(structure string, block uint64, cite, format string, args ...any) {
	c.add(Fault{Kind: Note, Struct: structure, Block: block, Device: -1, Cite: cite, Msg: fmt.Sprintf(format, args...)})
}

// wrong reports what decoding and verifying a superblock found.
func (c *checker) wrong(block uint64, cite string, err error) {
	c.add(Fault{Kind: Corruption, Struct: superblockName(block), Block: block, Device: -1, Cite: cite, Msg: message(err)})
}

// superblock reads block 0.
func (c *checker) superblock() error {
	s, _, err := c.m.readSuperblock(0)
	if err != nil {
		return err
	}
	c.pool, c.m.super = s, s
	have := c.m.dev.blocks
	if s.Metadata.Blocks > have {
		c.wrong(0, citeSpaceMapRoot, fmt.Errorf("metadata_space_map_root.nr_blocks %d: there are only %d", s.Metadata.Blocks, have))
	}
	c.m.dev.blocks = min(have, s.Metadata.Blocks)
	s.faults(c.m.dev.blocks, func(err error) { c.wrong(0, citeSuperblock, err) })
	if c.unusable = s.Time > maxTime || s.Data.Blocks > maxDataBlocks; s.Time > maxTime {
		c.m.super.Time = maxTime
	}
	for _, flags := range []struct {
		name  string
		value uint32
	}{{"compat_flags", s.CompatFlags}, {"compat_ro_flags", s.CompatROFlags}, {"flags", s.Flags &^ flagNeedsCheck}} {
		if flags.value != 0 {
			c.note(superblockName(0), 0, citeFeatures, "%s %#x: unknown bits", flags.name, flags.value)
		}
	}
	if s.NeedsCheck() {
		c.note(superblockName(0), 0, citeNeedsCheck, "flags: needs_check is set")
	}
	c.stats.Superblock = s
	c.stats.MetadataBlocks, c.stats.DataBlocks = s.Metadata.Blocks, s.Data.Blocks
	c.blocks = newBlockTable(c.m.dev.blocks)
	c.blocks.use(0)
	return nil
}

// heldSuperblock reads the metadata snapshot's superblock, if there is one.
func (c *checker) heldSuperblock() error {
	block := c.pool.HeldRoot
	if block == 0 {
		return nil
	}
	if block >= c.m.dev.blocks {
		c.broken = true
		c.wrong(0, citeHeld, fmt.Errorf("held_root %d: not one of the metadata blocks 1 to %d", block, max(c.m.dev.blocks, 1)-1))
		return nil
	}
	c.blocks.use(block)
	s, _, err := c.m.readSuperblock(block)
	if err != nil {
		c.broken = true
		return c.judge(err, func(err error) { c.wrong(block, citeHeld, err) })
	}
	wrong := func(err error) { c.wrong(block, citeHeld, err) }
	s.faults(c.m.dev.blocks, wrong)
	s.heldFaults(&c.pool, wrong)
	c.held = &s
	return nil
}

// judge passes a fault of the format to fault, and returns any other error.
func (c *checker) judge(err error, fault func(error)) error {
	if !isFormatError(err) {
		return err
	}
	fault(err)
	return nil
}
