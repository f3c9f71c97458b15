package lvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

// ErrNoLabel means that none of the first four sectors holds a valid LVM2 label, so the disk is not
// a physical volume.
var ErrNoLabel = errors.New("no LVM label: not a physical volume")

const (
	labelSectors = 4 // searched for a label: LABEL_SCAN_SECTORS
	labelSize    = SectorSize
	labelMagic   = "LABELONE"
	labelType    = "LVM2 001"
	labelHeader  = 32 // struct label_header
	pvHeaderSize = 40 // struct pv_header, without its lists
	areaSize     = 16 // struct disk_locn
	uuidSize     = 32

	// maxAreas is more than LVM writes into one list, which is two metadata areas.
	maxAreas = 4
)

// checksum returns LVM's CRC-32 of labels, headers and text (calc_crc in lib/misc/crc.c). It has
// its own start value and no final inversion.
func checksum(p []byte) uint32 { return checksumMore(0xf597a6cf, p) }

func checksumMore(sum uint32, p []byte) uint32 {
	return ^crc32.Update(^sum, crc32.IEEETable, p)
}

// Area is a run of bytes of a disk. A Size of 0 means up to the end of the disk.
type Area struct {
	Off, Size int64 // in bytes
}

// label is the content of a label sector: struct label_header, struct pv_header and struct
// pv_header_extension of lib/format_text/layout.h.
type label struct {
	sector     int64
	uuid       string // with dashes
	deviceSize uint64
	data       []Area
	metadata   []Area
	extension  uint32 // version; 0 if there is none
	flags      uint32
	bootloader []Area
}

// readLabel returns the first valid label, and the sectors of any further labels in also.
func readLabel(r io.ReaderAt, size int64) (l label, also []int64, err error) {
	buf := make([]byte, min(size, labelSectors*SectorSize)/SectorSize*SectorSize)
	if err := binfmt.Fill(r, size, "LVM label", buf, 0); err != nil {
		return label{}, nil, err
	}
	found := false
	for s := int64(0); s < int64(len(buf)/SectorSize); s++ {
		b := buf[s*SectorSize:][:labelSize]
		if !isLabel(b, s) {
			continue
		}
		if found {
			also = append(also, s)
			continue
		}
		if l, err = decodeLabel(b, s); err != nil {
			return label{}, nil, err
		}
		found = true
	}
	if !found {
		return label{}, nil, ErrNoLabel
	}
	return l, also, nil
}

// isLabel checks everything that makes a sector a label.
//
//	0 "LABELONE"  8 sector  16 CRC of [20,512)  20 offset of the PV header  24 "LVM2 001"
func isLabel(b []byte, sector int64) bool {
	le := binary.LittleEndian
	return string(b[:8]) == labelMagic && le.Uint64(b[8:]) == uint64(sector) &&
		string(b[24:32]) == labelType && le.Uint32(b[16:]) == checksum(b[20:])
}

// decodeLabel decodes the PV header after a label that isLabel accepted.
//
//	0 UUID  32 device size  40 data areas, 0  .. metadata areas, 0
//	.. extension version  +4 flags  +8 bootloader areas, 0
func decodeLabel(b []byte, sector int64) (label, error) {
	le := binary.LittleEndian
	at := sector * SectorSize
	off := le.Uint32(b[20:])
	if off < labelHeader || off > labelSize-pvHeaderSize {
		return label{}, &sparse.FormatError{Struct: "LVM label", Off: at, Field: "offset", Value: off, Msg: "no PV header can lie there"}
	}
	p := b[off:]
	l := label{sector: sector, deviceSize: le.Uint64(p[32:])}
	var ok bool
	if l.uuid, ok = dashed(p[:uuidSize]); !ok {
		return label{}, &sparse.FormatError{Struct: "PV header", Off: at + int64(off), Field: "uuid", Value: p[:uuidSize], Msg: "not made of the characters of an LVM UUID"}
	}
	c := areaList{b: p[pvHeaderSize:], at: at + int64(off) + pvHeaderSize}
	var err error
	if l.data, err = c.list("data areas"); err != nil {
		return label{}, err
	}
	if l.metadata, err = c.list("metadata areas"); err != nil {
		return label{}, err
	}
	// The extension is optional; a label without room for it has none.
	if len(c.b) >= 8 {
		version, flags := le.Uint32(c.b), le.Uint32(c.b[4:])
		c.b, c.at = c.b[8:], c.at+8
		if version > 0 {
			l.extension, l.flags = version, flags
			if l.bootloader, err = c.list("bootloader areas"); err != nil {
				return label{}, err
			}
		}
	}
	return l, nil
}

// areaList decodes the lists of areas, one after another.
type areaList struct {
	b  []byte // the rest of the label
	at int64  // its offset on the disk
}

func (c *areaList) list(name string) ([]Area, error) {
	var all []Area
	start := c.at
	for {
		if len(c.b) < areaSize {
			return nil, &sparse.FormatError{Struct: "PV header", Off: start, Field: name, Msg: "the list does not end inside the label"}
		}
		off, size := binary.LittleEndian.Uint64(c.b), binary.LittleEndian.Uint64(c.b[8:])
		at := c.at
		c.b, c.at = c.b[areaSize:], c.at+areaSize
		if off == 0 {
			return all, nil
		}
		if len(all) == maxAreas {
			return nil, &sparse.FormatError{Struct: "PV header", Off: at, Field: name, Msg: fmt.Sprintf("more than %d", maxAreas)}
		}
		if int64(off) < 0 || int64(size) < 0 || int64(off+size) < 0 {
			return nil, &sparse.FormatError{Struct: "PV header", Off: at, Field: name, Value: off, Msg: fmt.Sprintf("an area of %d bytes there ends past 2^63", size)}
		}
		all = append(all, Area{int64(off), int64(size)})
	}
}

// uuidGroups holds the lengths between the dashes of a UUID in text form.
var uuidGroups = [...]int{6, 4, 4, 4, 4, 4, 6}

// dashed returns the text form of the 32 characters of a UUID on disk.
func dashed(raw []byte) (string, bool) {
	if len(raw) != uuidSize || bytes.ContainsFunc(raw, func(r rune) bool { return !uuidChar(r) }) {
		return "", false
	}
	var out []byte
	for i, n := range uuidGroups {
		if i > 0 {
			out = append(out, '-')
		}
		out, raw = append(out, raw[:n]...), raw[n:]
	}
	return string(out), true
}

// isUUID reports whether s is a UUID in its text form.
func isUUID(s string) bool {
	raw := make([]byte, 0, uuidSize)
	for i, n := range uuidGroups {
		if i > 0 {
			if s == "" || s[0] != '-' {
				return false
			}
			s = s[1:]
		}
		if len(s) < n {
			return false
		}
		raw, s = append(raw, s[:n]...), s[n:]
	}
	_, ok := dashed(raw)
	return ok && s == ""
}

func uuidChar(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '!' || r == '#'
}
