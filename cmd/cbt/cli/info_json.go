package cli

import "cbt/qcow2"

// infoJSON has the keys of qemu-img info --output=json; disk-size, point,
// snapshot and problems are cbt's own.
type infoJSON struct {
	VirtualSize   int64          `json:"virtual-size"`
	Filename      string         `json:"filename"`
	ClusterSize   int64          `json:"cluster-size,omitempty"`
	Format        string         `json:"format"`
	ActualSize    int64          `json:"actual-size"`
	Encrypted     bool           `json:"encrypted,omitempty"`
	DirtyFlag     bool           `json:"dirty-flag"`
	Specific      *specificJSON  `json:"format-specific,omitempty"`
	Backing       string         `json:"backing-filename,omitempty"`
	FullBacking   string         `json:"full-backing-filename,omitempty"`
	BackingFormat string         `json:"backing-filename-format,omitempty"`
	Snapshots     []snapshotJSON `json:"snapshots,omitempty"`
	Snapshot      *snapshotJSON  `json:"snapshot,omitempty"` // that REF names
	Point         string         `json:"point,omitempty"`
	Machine       *machineJSON   `json:"machine,omitempty"` // of that snapshot
	Problems      []string       `json:"problems,omitempty"`
}

type specificJSON struct {
	Type string    `json:"type"`
	Data qcow2JSON `json:"data"`
}

type qcow2JSON struct {
	Compat          string       `json:"compat"`
	CompressionType string       `json:"compression-type"`
	RefcountBits    int          `json:"refcount-bits"`
	LazyRefcounts   *bool        `json:"lazy-refcounts,omitempty"`
	Corrupt         *bool        `json:"corrupt,omitempty"`
	ExtendedL2      *bool        `json:"extended-l2,omitempty"`
	DataFile        string       `json:"data-file,omitempty"`
	DataFileRaw     *bool        `json:"data-file-raw,omitempty"`
	Bitmaps         []bitmapJSON `json:"bitmaps,omitempty"`
}

type bitmapJSON struct {
	Name        string   `json:"name"`
	Granularity int64    `json:"granularity"`
	Flags       []string `json:"flags"`
}

type snapshotJSON struct {
	ID          string  `json:"id"`
	Name        string  `json:"name"`
	VMStateSize uint64  `json:"vm-state-size"`
	DateSec     int64   `json:"date-sec"`
	DateNsec    int     `json:"date-nsec"`
	VMClockSec  uint64  `json:"vm-clock-sec"`
	VMClockNsec uint64  `json:"vm-clock-nsec"`
	ICount      *uint64 `json:"icount,omitempty"`
	DiskSize    int64   `json:"disk-size"`
	Point       string  `json:"point,omitempty"`
}

func (d *description) json() infoJSON {
	j := infoJSON{
		VirtualSize: d.size, Filename: d.file.Path, Format: d.format, ActualSize: d.file.Info.Stored, Point: d.point,
	}
	j.Machine, j.Encrypted = d.machine, d.luks
	for _, err := range d.problems {
		j.Problems = append(j.Problems, err.Error())
	}
	if d.qcow == nil {
		return j
	}
	h := d.qcow.Header()
	j.Encrypted = h.CryptMethod != qcow2.CryptNone
	j.ClusterSize, j.DirtyFlag = h.ClusterSize(), d.qcow.Dirty()
	j.Specific = &specificJSON{formatQcow2, d.qcow2JSON()}
	if j.Backing = h.BackingFile; j.Backing != "" {
		j.BackingFormat = d.qcow.BackingFormat()
		j.FullBacking = h.BackingFile
		if path, err := resolveName(d.file.Path, backingFile, h.BackingFile); err == nil {
			j.FullBacking = path
		}
		if d.img != nil && d.img.backing != nil {
			j.FullBacking = d.img.backing.file.Path // or what stands for it
		}
	}
	for _, s := range d.qcow.Snapshots() {
		j.Snapshots = append(j.Snapshots, d.snapshotJSON(&s))
	}
	if d.snapshot != nil {
		s := d.snapshotJSON(d.snapshot)
		j.Snapshot = &s
	}
	return j
}

func (d *description) qcow2JSON() qcow2JSON {
	h := d.qcow.Header()
	j := qcow2JSON{Compat: compat(h), CompressionType: compression(h), RefcountBits: 1 << h.RefcountOrder}
	for _, b := range d.bitmaps {
		flags := bitmapFlags(b)
		j.Bitmaps = append(j.Bitmaps, bitmapJSON{b.Name, 1 << b.Granularity, flags})
	}
	if h.Version < 3 {
		return j
	}
	j.LazyRefcounts = new(h.Compatible&qcow2.CompatLazyRefcounts != 0)
	j.Corrupt = new(h.Incompatible&qcow2.IncompatCorrupt != 0)
	j.ExtendedL2 = new(h.ExtendedL2())
	if h.HasDataFile() {
		j.DataFile = d.qcow.DataFile()
		j.DataFileRaw = new(h.Autoclear&qcow2.AutoclearRawData != 0)
	}
	return j
}

func (d *description) snapshotJSON(s *qcow2.Snapshot) snapshotJSON {
	clock := uint64(s.VMClock)
	j := snapshotJSON{
		ID: s.ID, Name: s.Name, VMStateSize: s.VMStateSize,
		DateSec: s.Date.Unix(), DateNsec: s.Date.Nanosecond(),
		VMClockSec: clock / 1e9, VMClockNsec: clock % 1e9,
		DiskSize: s.DiskSize, Point: d.pointOf(s),
	}
	if s.ICount != ^uint64(0) {
		j.ICount = &s.ICount
	}
	return j
}

func compat(h qcow2.Header) string {
	if h.Version < 3 {
		return "0.10"
	}
	return "1.1"
}

// compression names the method as qemu-img does.
func compression(h qcow2.Header) string {
	if h.CompressionType == qcow2.CompressionZstd {
		return "zstd"
	}
	return "zlib"
}

func bitmapFlags(b qcow2.Bitmap) []string {
	flags := []string{}
	if b.Flags&qcow2.BitmapInUse != 0 {
		flags = append(flags, "in-use")
	}
	if b.Flags&qcow2.BitmapAuto != 0 {
		flags = append(flags, "auto")
	}
	return flags
}
