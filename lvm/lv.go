package lvm

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// LV is a logical volume as the text describes it. Users see only volumes for which Visible is
// true.
type LV struct {
	Name         string
	ID           string // UUID, with dashes
	Size         int64  // sum of all segments, in bytes; see VolumeSize
	Status       []string
	Flags        []string
	Tags         []string
	CreationTime int64 // in Unix seconds; 0 if the text does not give it
	CreationHost string
	Segments     []Segment // sorted by start, covering [0, Size)
	// Snapshot is the snapshot segment that names this volume as its exception store. That makes
	// this volume the thick snapshot that users see.
	Snapshot *Segment
	// SnapshotSize is the size of the snapshot's content in bytes, which is the size of its origin
	// when it was taken.
	SnapshotSize int64
	// Fault is why the volume cannot be read, whatever disks there are.
	Fault error

	group   *Group
	extents int64
	merging string // the snapshot that is being merged back into this volume
}

// lvStatus lists the words that a volume's status may contain (flags.c).
var lvStatus = []string{"READ", "WRITE", "VISIBLE", "FIXED_MINOR", "PVMOVE", "LOCKED", "NOTSYNCED", "REBUILD", "WRITEMOSTLY", "RESHAPE"}

// Group returns the group that the volume belongs to.
func (lv *LV) Group() *Group { return lv.group }

// FullName returns the names of group and volume, as in vg0/vm1.
func (lv *LV) FullName() string { return lv.group.Name + "/" + lv.Name }

// Type returns the type of the first segment by the name that lvs prints: linear for a striped
// segment with one stripe, snapshot for a thick snapshot's store.
func (lv *LV) Type() string {
	switch {
	case lv.Snapshot != nil:
		return "snapshot"
	case len(lv.Segments) == 0:
		return "unknown"
	}
	s := &lv.Segments[0]
	if s.Type == "striped" && len(s.Areas) == 1 {
		return "linear"
	}
	return s.Type
}

// VolumeSize returns the size in bytes of what Group.Open opens: for a thick snapshot that of its
// origin when it was taken, otherwise Size.
func (lv *LV) VolumeSize() int64 {
	if lv.Snapshot != nil {
		return lv.SnapshotSize
	}
	return lv.Size
}

// Visible reports whether users see the volume under its name. A thick snapshot appears as its
// store, not as the volume with the snapshot segment.
func (lv *LV) Visible() bool {
	if lv.Snapshot != nil {
		return true
	}
	return lv.has("VISIBLE") && !(len(lv.Segments) == 1 && lv.Segments[0].Type == "snapshot")
}

// thin returns the volume's thin segment, or nil if it is not a thin volume.
func (lv *LV) thin() *Segment {
	if len(lv.Segments) == 1 && lv.Segments[0].Type == "thin" {
		return &lv.Segments[0]
	}
	return nil
}

// Origin returns the name of the volume that this is a snapshot of. It is "" if this is not a
// snapshot or its origin was removed: for thin volumes the name vanishes with the origin. It says
// nothing about what changed.
func (lv *LV) Origin() string {
	if lv.Snapshot != nil {
		return lv.Snapshot.Origin
	}
	if s := lv.thin(); s != nil {
		return s.Origin
	}
	return ""
}

// ExternalOrigin returns the name of the volume that a thin volume shows where nothing was written
// to it, or "" if there is none.
func (lv *LV) ExternalOrigin() string {
	if s := lv.thin(); s != nil {
		return s.ExternalOrigin
	}
	return ""
}

// Pool returns the name of a thin volume's pool, or "" for other volumes.
func (lv *LV) Pool() string {
	if s := lv.thin(); s != nil {
		return s.ThinPool
	}
	return ""
}

// DeviceID returns the number of a thin volume in its pool, and whether it is a thin volume.
func (lv *LV) DeviceID() (uint32, bool) {
	if s := lv.thin(); s != nil {
		return uint32(s.DeviceID), true
	}
	return 0, false
}

// has reports whether the status or the flags contain a word.
func (lv *LV) has(word string) bool {
	return slices.Contains(lv.Status, word) || slices.Contains(lv.Flags, word)
}

func (lv *LV) fail(err error) {
	if lv.Fault == nil {
		lv.Fault = err
	}
}

// decodeLV decodes a volume; any fault becomes its Fault.
func (g *Group) decodeLV(it Item) *LV {
	f := fields{s: it.Section}
	lv := &LV{
		Name:         it.Key,
		group:        g,
		ID:           f.uuid("id"),
		Status:       f.texts("status", true),
		Flags:        f.texts("flags", false),
		Tags:         f.texts("tags", false),
		CreationTime: f.integer("creation_time", 0, math.MaxInt64, false),
		CreationHost: f.text("creation_host", false),
	}
	if !isName(lv.Name) {
		f.fail(textError(it.Pos, lv.Name, "not a name of a logical volume"))
	}
	if w := unknown(lv.Status, lvStatus); w != "" {
		f.fail(textError(it.Section.item("status").Pos, w, "a status that is not known"))
	}
	count := f.integer("segment_count", 1, maxItems, true)
	if lv.Fault = f.err; f.err == nil {
		lv.Fault = lv.decodeSegments(it, count)
	}
	return lv
}

// decodeSegments decodes segment1 to segmentN, in any order, and sorts them by the extents that
// they cover.
func (lv *LV) decodeSegments(it Item, count int64) error {
	for _, sub := range it.Section.Items {
		n, ok := strings.CutPrefix(sub.Key, "segment")
		if !ok || sub.Section == nil {
			continue
		}
		i, err := strconv.ParseInt(n, 10, 64)
		if err != nil || i < 1 || i > count || n != strconv.FormatInt(i, 10) {
			return textError(sub.Pos, sub.Key, "not one of the %d segments", count)
		}
		s, err := decodeSegment(sub.Section)
		if err != nil {
			return err
		}
		lv.Segments = append(lv.Segments, s)
	}
	if int64(len(lv.Segments)) != count {
		return textError(it.Section.item("segment_count").Pos, count, "%d segments are there", len(lv.Segments))
	}
	slices.SortStableFunc(lv.Segments, func(a, b Segment) int {
		switch {
		case a.Start < b.Start:
			return -1
		case a.Start > b.Start:
			return 1
		}
		return 0
	})
	for _, s := range lv.Segments {
		switch {
		case s.Start < lv.extents:
			return textError(s.pos, s.Start, "a segment that overlaps the one before it, which ends at extent %d", lv.extents)
		case s.Start > lv.extents:
			return textError(s.pos, s.Start, "a segment that leaves a gap from extent %d", lv.extents)
		case s.Count > math.MaxInt64/lv.group.ExtentSize-lv.extents:
			return textError(s.pos, s.Count, "extents past 2^63 bytes")
		}
		lv.extents += s.Count
	}
	lv.Size = lv.extents * lv.group.ExtentSize
	return nil
}
