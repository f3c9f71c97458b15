package qcow2

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

const (
	bitmapSize         = 24 // bytes of a directory entry without extra data and name
	maxBitmaps         = 65535
	maxBitmapDirectory = 1024 * maxBitmaps // QEMU's limit
	maxBitmapName      = 1023
	minGranularityBits = 9 // QEMU's limits; the specification allows 0 to 63
	maxGranularityBits = 31
	bitmapDirty        = 1 // the only type
)

// BitmapFlags are the flags of a bitmap.
type BitmapFlags uint32

// The flags of the specification.
const (
	BitmapInUse               BitmapFlags = 1 << 0 // not saved since the image was opened for writing
	BitmapAuto                BitmapFlags = 1 << 1 // enabled: records what is written
	BitmapExtraDataCompatible BitmapFlags = 1 << 2

	bitmapReserved = ^(BitmapInUse | BitmapAuto | BitmapExtraDataCompatible)
)

// Reasons why a bitmap cannot be used.
var (
	ErrBitmapInUse = errors.New("in_use is set: the bitmap was not saved and may lack changes")
	// ErrBitmapDisabled is returned by ChangedByBitmap only: the bits themselves can be trusted.
	ErrBitmapDisabled = errors.New("disabled: it misses what was written since")
	ErrBitmapsStale   = errors.New("the autoclear bit for bitmaps is not set: a program that does not know them wrote to the image")
)

// Bitmap is an entry of the bitmap directory.
type Bitmap struct {
	Name          string
	TableOffset   uint64 // of the bitmap table in the file, in bytes
	TableSize     uint32 // number of entries
	Flags         BitmapFlags
	Type          uint8  // 1 is dirty tracking, the only type there is
	Granularity   uint8  // in bits: one bit stands for 1<<Granularity bytes
	ExtraDataSize uint32 // in bytes
	Offset        int64  // of the entry in the file, in bytes
}

// Bitmaps reads the bitmap directory. It returns nil if the image has no bitmaps extension, and
// ErrBitmapsStale if the extension must not be used.
func (img *Image) Bitmaps() ([]Bitmap, error) {
	x := img.ext.bitmaps
	switch {
	case !img.ext.has(ExtensionBitmaps):
		return nil, nil
	case img.header.Autoclear&AutoclearBitmaps == 0:
		return nil, &sparse.FormatError{Struct: "qcow2 bitmaps extension", Off: -1, Err: ErrBitmapsStale}
	case x == nil:
		return nil, &sparse.FormatError{Struct: "qcow2 bitmaps extension", Field: "length", Off: -1, Msg: fmt.Sprintf("not %d", bitmapsSize)}
	}
	if err := x.validate(img); err != nil {
		return nil, err
	}
	pos, end := int64(x.directoryOffset), int64(x.directoryOffset+x.directorySize)
	directory := bufio.NewReader(io.NewSectionReader(img.file.r, pos, end-pos))
	var list []Bitmap
	for i := range x.count {
		b, n, err := readBitmap(directory, pos, end)
		if err != nil {
			return nil, fmt.Errorf("qcow2 bitmap %d of %d: %w", i+1, x.count, err)
		}
		list = append(list, b)
		pos += n
	}
	if pos != end {
		return nil, x.fault("bitmap_directory_size", 8, x.directorySize, fmt.Sprintf("its %d entries have %d bytes", x.count, pos-int64(x.directoryOffset)))
	}
	return list, nil
}

func (x *bitmapsExtension) validate(img *Image) error {
	switch {
	case x.reserved != 0:
		return x.fault("reserved", 4, x.reserved, "not zero")
	case x.count == 0 || x.count > maxBitmaps:
		return x.fault("nb_bitmaps", 0, x.count, fmt.Sprintf("not in 1..%d", maxBitmaps))
	case x.directorySize > maxBitmapDirectory:
		return x.fault("bitmap_directory_size", 8, x.directorySize, fmt.Sprintf("more than %d", maxBitmapDirectory))
	}
	if msg := img.header.tableFault(x.directoryOffset, x.directorySize, img.file.size); msg != "" {
		return x.fault("bitmap_directory_offset", 16, x.directoryOffset, msg)
	}
	return nil
}

func (x *bitmapsExtension) fault(field string, at int64, value any, msg string) error {
	return &sparse.FormatError{Struct: "qcow2 bitmaps extension", Field: field, Off: x.off + at, Value: value, Msg: msg}
}

// readBitmap reads the entry at off and returns it with its length in bytes, padding included. The
// directory ends at end.
//
//	0 bitmap_table_offset  8 bitmap_table_size  12 flags  16 type
//	17 granularity_bits  18 name_size  20 extra_data_size
//	24 extra data, then the name, padded to 8
func readBitmap(directory *bufio.Reader, off, end int64) (Bitmap, int64, error) {
	var head [bitmapSize]byte
	if _, err := io.ReadFull(directory, head[:]); err != nil {
		return Bitmap{}, 0, bitmapCut(off, err)
	}
	be := binary.BigEndian
	b := Bitmap{
		TableOffset:   be.Uint64(head[:]),
		TableSize:     be.Uint32(head[8:]),
		Flags:         BitmapFlags(be.Uint32(head[12:])),
		Type:          head[16],
		Granularity:   head[17],
		ExtraDataSize: be.Uint32(head[20:]),
		Offset:        off,
	}
	nameSize := be.Uint16(head[18:])
	n := (bitmapSize + int64(b.ExtraDataSize) + int64(nameSize) + 7) &^ 7
	switch {
	case n > end-off:
		return Bitmap{}, 0, bitmapCut(off, io.EOF)
	case nameSize == 0 || nameSize > maxBitmapName:
		return Bitmap{}, 0, bitmapError("name_size", off+18, nameSize, fmt.Sprintf("not in 1..%d", maxBitmapName))
	}
	name := make([]byte, nameSize)
	if _, err := directory.Discard(int(b.ExtraDataSize)); err != nil {
		return Bitmap{}, 0, bitmapCut(off, err)
	}
	if _, err := io.ReadFull(directory, name); err != nil {
		return Bitmap{}, 0, bitmapCut(off, err)
	}
	b.Name = string(name)
	padding := n - bitmapSize - int64(b.ExtraDataSize) - int64(nameSize)
	if _, err := directory.Discard(int(padding)); err != nil {
		return Bitmap{}, 0, bitmapCut(off, err)
	}
	return b, n, nil
}

// Usable returns why the bits must not be trusted: ErrBitmapInUse, or a *sparse.FormatError for
// what this package does not know. It returns nil if they can be trusted.
func (b *Bitmap) Usable() error {
	switch {
	case b.Flags&BitmapInUse != 0:
		return &sparse.FormatError{Struct: "qcow2 bitmap", Field: "name", Off: b.Offset, Value: b.Name, Err: ErrBitmapInUse}
	case b.Flags&bitmapReserved != 0:
		return bitmapError("flags", b.Offset+12, uint32(b.Flags), "unknown flags")
	case b.Type != bitmapDirty:
		return bitmapError("type", b.Offset+16, b.Type, "not a dirty tracking bitmap")
	case b.Granularity < minGranularityBits || b.Granularity > maxGranularityBits:
		return bitmapError("granularity_bits", b.Offset+17, b.Granularity, fmt.Sprintf("not in %d..%d", minGranularityBits, maxGranularityBits))
	case b.ExtraDataSize != 0 && b.Flags&BitmapExtraDataCompatible == 0:
		return bitmapError("extra_data_size", b.Offset+20, b.ExtraDataSize, "unknown extra data that must not be ignored")
	}
	return nil
}

// validate checks what reading the bits depends on, for a disk of diskSize bytes. The table must
// have exactly the length that such a disk needs, and must lie inside the file.
func (b *Bitmap) validate(img *Image, diskSize int64) error {
	if err := b.Usable(); err != nil {
		return err
	}
	covers := img.header.ClusterSize() * 8 << b.Granularity // bytes of disk that one entry covers
	need := diskSize / covers
	if diskSize%covers != 0 {
		need++
	}
	if int64(b.TableSize) != need {
		return bitmapError("bitmap_table_size", b.Offset+8, b.TableSize, fmt.Sprintf("a disk of %d bytes needs %d entries", diskSize, need))
	}
	if msg := img.header.tableFault(b.TableOffset, uint64(b.TableSize)*8, img.file.size); msg != "" {
		return bitmapError("bitmap_table_offset", b.Offset, b.TableOffset, msg)
	}
	return nil
}

func bitmapError(field string, at int64, value any, msg string) error {
	return &sparse.FormatError{Struct: "qcow2 bitmap directory entry", Field: field, Off: at, Value: value, Msg: msg}
}

// bitmapCut returns the error for a directory that ends inside the entry at off. If err is an error
// of reading the file, it returns that instead.
func bitmapCut(off int64, err error) error {
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		return fmt.Errorf("qcow2 bitmap directory entry at 0x%x: %w", off, err)
	}
	return &sparse.FormatError{Struct: "qcow2 bitmap directory entry", Off: off, Msg: "longer than the directory"}
}

// bitmapEntry points to a cluster of bits.
//
//	63..56 reserved  55..9 offset of the bits  8..1 reserved
//	0 all ones, if the offset is 0
type bitmapEntry uint64

func (e bitmapEntry) offset() uint64 { return uint64(e) & entryOffset }
func (e bitmapEntry) allOnes() bool  { return e == 1 }

// fault returns what is wrong with this entry of a bitmap table of img, or "".
func (e bitmapEntry) fault(img *Image) string {
	switch {
	case e.offset() == 0 && e > 1, e.offset() != 0 && uint64(e) != e.offset():
		return "reserved bits set"
	case e.offset()&uint64(img.header.ClusterSize()-1) != 0:
		return "offset of the bits not cluster aligned"
	case e.offset() != 0 && !binfmt.Inside(e.offset(), uint64(img.header.ClusterSize()), img.file.size):
		return fmt.Sprintf("bits past the end of the file of %d bytes", img.file.size)
	}
	return ""
}
