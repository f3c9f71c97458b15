package lvm

import (
	"bytes"
	"fmt"
	"io"
)

// PV is a physical volume as its own label and metadata areas describe it.
type PV struct {
	UUID          string // in its text form, with dashes
	LabelSector   int64  // sector of the label, 0 to 3
	DeviceSize    uint64 // in bytes; the size in the group's text is authoritative
	DataAreas     []Area
	Bootloader    []Area
	MetadataAreas []MetadataArea
	// Extension is the version of the header extension, or 0 if there is none. InUse is its flag
	// that some group uses the PV.
	Extension uint32
	InUse     bool
	// Warnings are one line each, about oddities that do not prevent reading.
	Warnings []string
}

// pvUsed is PV_EXT_USED of the flags of the header extension.
const pvUsed = 1

// ReadPV reads the label, the PV header and all metadata areas in the first size bytes of r. The
// error is ErrNoLabel if there is no label, and a *sparse.FormatError if the label is damaged. A
// fault in one metadata area becomes its Fault. LVM may be writing at the same time: see readMDA.
//
// To read a disk that is in use, open it with O_DIRECT or drop its cache first, because the kernel
// writes below the cache.
func ReadPV(r io.ReaderAt, size int64) (*PV, error) {
	l, also, err := readLabel(r, size)
	if err != nil {
		return nil, err
	}
	pv := &PV{
		UUID:        l.uuid,
		LabelSector: l.sector,
		DeviceSize:  l.deviceSize,
		DataAreas:   l.data,
		Bootloader:  l.bootloader,
		Extension:   l.extension,
		InUse:       l.extension >= 2 && l.flags&pvUsed != 0,
	}
	for _, s := range also {
		pv.warn("another label in sector %d is not looked at", s)
	}
	var end int64
	ignored := 0
	for _, a := range l.metadata {
		m := readMDA(r, size, a)
		// Areas that overlap would be two names for one text.
		if m.Fault == nil && a.Off < end {
			m = MetadataArea{Area: a, Fault: mdaError(a, "start", a.Off, "overlaps the area before it")}
		}
		end = max(end, a.Off+a.Size)
		if m.Ignored {
			ignored++
		}
		if m.Fault != nil {
			pv.warn("%v", m.Fault)
		}
		pv.MetadataAreas = append(pv.MetadataAreas, m)
	}
	if ignored > 0 && ignored == len(pv.MetadataAreas) {
		pv.warn("its metadata is set to be ignored")
	}
	return pv, nil
}

func (pv *PV) warn(format string, args ...any) {
	pv.Warnings = append(pv.Warnings, fmt.Sprintf(format, args...))
}

// same reports whether two readings of a disk found the same metadata.
func (pv *PV) same(o *PV) bool {
	if pv.UUID != o.UUID || len(pv.MetadataAreas) != len(o.MetadataAreas) {
		return false
	}
	for i := range pv.MetadataAreas {
		a, b := &pv.MetadataAreas[i], &o.MetadataAreas[i]
		if a.Area != b.Area || a.Ignored != b.Ignored || (a.Fault == nil) != (b.Fault == nil) || !bytes.Equal(a.Text, b.Text) {
			return false
		}
	}
	return true
}
