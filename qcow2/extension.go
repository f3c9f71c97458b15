package qcow2

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"cbt/sparse"
)

// Types of header extensions.
const (
	ExtensionEnd           uint32 = 0x00000000
	ExtensionBackingFormat uint32 = 0xe2792aca
	ExtensionFeatureNames  uint32 = 0x6803f857
	ExtensionBitmaps       uint32 = 0x23852875
	ExtensionEncryption    uint32 = 0x0537be77
	ExtensionDataFile      uint32 = 0x44415441
)

const (
	extensionHeaderSize = 8
	featureRecordSize   = 48
	bitmapsSize         = 24

	maxStringExtension  = 4096   // no file name is longer
	maxFeatureNames     = 3 * 64 // one for each bit of each set
	maxListedExtensions = 256    // the first cluster may be full of empty ones
)

// Extension describes a header extension: its type, and where its data lie. Type is never 0.
type Extension struct {
	Type uint32 // one of the constants, or a type that this package does not know
	Off  int64  // of its data in the file, in bytes
	Len  uint32 // of its data in bytes, without padding
}

// Known reports whether the specification names the type.
func (e Extension) Known() bool {
	switch e.Type {
	case ExtensionBackingFormat, ExtensionFeatureNames, ExtensionBitmaps, ExtensionEncryption, ExtensionDataFile:
		return true
	}
	return false
}

// extensions holds what was read from the extension area of an image.
type extensions struct {
	all           []Extension
	known         []uint32 // types met so far that the specification names
	backingFormat string
	dataFile      string
	features      map[FeatureKey]string
	bitmaps       *bitmapsExtension // also nil if its length is wrong
}

// bitmapsExtension is the data of the bitmaps extension.
//
//	0 nb_bitmaps  4 reserved  8 bitmap_directory_size  16 bitmap_directory_offset
type bitmapsExtension struct {
	off             int64 // of the data itself, in the file
	count           uint32
	reserved        uint32
	directorySize   uint64
	directoryOffset uint64
}

func decodeBitmapsExtension(b []byte, off int64) *bitmapsExtension {
	be := binary.BigEndian
	return &bitmapsExtension{
		off:             off,
		count:           be.Uint32(b),
		reserved:        be.Uint32(b[4:]),
		directorySize:   be.Uint64(b[8:]),
		directoryOffset: be.Uint64(b[16:]),
	}
}

// decodeFeatureNames decodes whole records and ignores an incomplete one at the end, as QEMU does.
//
//	0 set  1 bit  2..47 name, padded with NUL
func decodeFeatureNames(b []byte) map[FeatureKey]string {
	names := make(map[FeatureKey]string)
	for ; len(b) >= featureRecordSize; b = b[featureRecordSize:] {
		name, _, _ := bytes.Cut(b[2:featureRecordSize], []byte{0})
		names[FeatureKey{b[0], b[1]}] = string(name)
	}
	return names
}

// readExtensions reads the extension area. It starts at the end of the header and ends at the end
// extension, at the name of the backing file or at the end of the first cluster. Unknown extensions
// are listed and skipped. Along with an error it still returns what it has read so far, for the
// names of features.
func (h *Header) readExtensions(r io.ReaderAt, size int64) (extensions, error) {
	var x extensions
	end := int64(1) << h.ClusterBits
	if h.BackingFileOffset != 0 {
		end = int64(h.BackingFileOffset)
	}
	pos := int64(h.HeaderLength)
	area := bufio.NewReader(io.NewSectionReader(r, pos, max(0, min(end, size)-pos)))
	for end-pos >= extensionHeaderSize {
		var head [extensionHeaderSize]byte
		if _, err := io.ReadFull(area, head[:]); err != nil {
			return x, extensionError(pos, "", nil, "cut", err)
		}
		e := Extension{binary.BigEndian.Uint32(head[:]), pos + extensionHeaderSize, binary.BigEndian.Uint32(head[4:])}
		if e.Type == ExtensionEnd {
			return x, nil
		}
		if int64(e.Len) > end-e.Off {
			return x, extensionError(pos, "length", e.Len, "longer than the room for extensions", nil)
		}
		if err := x.read(area, e); err != nil {
			return x, err
		}
		pos = e.Off + (int64(e.Len)+7)&^7
		if _, err := area.Discard(int(min(pos, end) - e.Off - int64(e.Len))); err != nil {
			return x, extensionError(e.Off-extensionHeaderSize, "length", e.Len, "cut", err)
		}
	}
	return x, nil
}

// read reads the data of extension e from area.
func (x *extensions) read(area *bufio.Reader, e Extension) error {
	at := e.Off - extensionHeaderSize
	if e.Known() {
		if x.has(e.Type) {
			return extensionError(at, "type", e.Type, "twice in one image", nil)
		}
		x.known = append(x.known, e.Type)
	}
	if len(x.all) < maxListedExtensions {
		x.all = append(x.all, e)
	}
	limit, refuse := uint32(0), false
	switch e.Type {
	case ExtensionBackingFormat, ExtensionDataFile:
		limit, refuse = maxStringExtension, true
	case ExtensionFeatureNames:
		limit = maxFeatureNames * featureRecordSize
	case ExtensionBitmaps:
		limit = bitmapsSize
	}
	if e.Len > limit {
		if refuse {
			return extensionError(at, "length", e.Len, fmt.Sprintf("more than %d", limit), nil)
		}
		if _, err := area.Discard(int(e.Len)); err != nil {
			return extensionError(at, "length", e.Len, "cut", err)
		}
		return nil
	}
	b := make([]byte, e.Len)
	if _, err := io.ReadFull(area, b); err != nil {
		return extensionError(at, "length", e.Len, "cut", err)
	}
	switch e.Type {
	case ExtensionBackingFormat:
		x.backingFormat = string(b)
	case ExtensionDataFile:
		x.dataFile = string(b)
	case ExtensionFeatureNames:
		x.features = decodeFeatureNames(b)
	case ExtensionBitmaps:
		if len(b) == bitmapsSize {
			x.bitmaps = decodeBitmapsExtension(b, e.Off)
		}
	}
	return nil
}

func (x *extensions) has(typ uint32) bool { return slices.Contains(x.known, typ) }

// extensionError returns a *sparse.FormatError, or err if that is an error of reading the file.
func extensionError(at int64, field string, value any, msg string, err error) error {
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return fmt.Errorf("qcow2 header extension at 0x%x: %w", at, err)
	}
	return &sparse.FormatError{Struct: "qcow2 header extension", Field: field, Off: at, Value: value, Msg: msg}
}
