// Package sparse is the ground floor. It describes what runs of bytes of a disk hold, known without
// reading them. Its files, devices and copies keep disks sparse.
//
// Offsets and lengths are bytes, always int64: no image is larger than
// 2^63-1 bytes.
package sparse

import (
	"fmt"
	"iter"
)

// Kind says what an extent reads as, and whether anything is stored for it.
type Kind uint8

const (
	// Data is stored bytes, which may well be zeros.
	Data Kind = iota + 1
	// Zero is known to read as zeros, by a flag or a preallocation.
	Zero
	// Hole has nothing stored anywhere and reads as zeros.
	Hole
)

func (k Kind) String() string {
	switch k {
	case Data:
		return "data"
	case Zero:
		return "zero"
	case Hole:
		return "hole"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// ReadsZero reports whether every byte of an extent of this kind is zero.
func (k Kind) ReadsZero() bool { return k == Zero || k == Hole }

// Extent is the run of bytes [Off, Off+Len) of an image, all of one Kind.
type Extent struct {
	Off, Len int64 // bytes
	Kind     Kind
}

// End returns the offset of the first byte after e.
func (e Extent) End() int64 { return e.Off + e.Len }

func (e Extent) String() string {
	return fmt.Sprintf("[%d,%d) %s", e.Off, e.End(), e.Kind)
}

// Clip returns the part of e inside [lo, hi); its Len is 0 if there is none.
func (e Extent) Clip(lo, hi int64) Extent {
	start, end := max(e.Off, lo), min(e.End(), hi)
	return Extent{Off: start, Len: max(0, end-start), Kind: e.Kind}
}

// Seq is a sequence of extents in ascending order. None is empty, and none overlaps the one before.
// An error comes once, as the last element, with the zero Extent. A Seq can be ranged over more
// than once unless the function that returns it says otherwise.
type Seq = iter.Seq2[Extent, error]
