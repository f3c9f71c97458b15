package qcow2

import (
	"crypto/sha256"

	"cbt/sparse"
)

// View is the content of a disk as one L1 table of an image describes it: the active state or an
// internal snapshot. It implements sparse.View.
type View struct {
	img       *Image
	snapshot  *Snapshot // nil for the active state
	size      int64
	l1Offset  uint64
	l1Entries int64             // that are in the file
	l1Cut     int64             // that are missing because the file ends
	l1Sum     [sha256.Size]byte // for Recheck
}

func (img *Image) newView(s *Snapshot) (*View, error) {
	h := &img.header
	v := &View{img: img, snapshot: s, size: int64(h.Size), l1Offset: h.L1TableOffset, l1Entries: int64(h.L1Size)}
	if s != nil {
		v.size, v.l1Offset, v.l1Entries = s.DiskSize, uint64(s.L1Offset), int64(s.L1Entries)
	}
	if there := max(0, (img.file.size-int64(v.l1Offset))/8); there < v.l1Entries {
		v.l1Entries, v.l1Cut = there, v.l1Entries-there
	}
	sum, err := v.sumL1()
	if err != nil {
		return nil, err
	}
	v.l1Sum = sum
	return v, nil
}

// Image returns the image that the view belongs to.
func (v *View) Image() *Image { return v.img }

// Snapshot returns the entry of the snapshot table, or nil for the active state.
func (v *View) Snapshot() *Snapshot { return v.snapshot }

// Backing returns the view that unallocated clusters read from, or nil if there is none.
func (v *View) Backing() sparse.View { return v.img.backing }

// Size returns the size of the disk in bytes; a snapshot has its own.
func (v *View) Size() int64 { return v.size }

// CutL1 returns how many entries at the end of the L1 table are missing because the file ends. It
// also returns the first byte of the disk that these entries would describe. From there on nothing
// counts as allocated, as in QEMU. Without Options.AllowCorrupt such a state is not opened.
func (v *View) CutL1() (entries, from int64) {
	if v.l1Cut == 0 {
		return 0, v.size
	}
	return v.l1Cut, min(v.size, v.l1Entries*v.img.header.L1Span())
}
