package lvm

import (
	"cmp"
	"slices"

	"cbt/sparse"
)

// use is a run of extents that a volume is made of. They belong to a PV or to another volume.
type use struct {
	m     *Member // this one or lv is set
	lv    *LV
	start int64
	count int64
	by    *LV
	pos   Pos
}

// link finds what the segments of each volume name. It sets the Fault of volumes that name
// something missing, or something that another volume uses too. It also bounds sizes: apart from
// segments of type error and zero and from snapshots, no volume is larger than what it is made of,
// however deeply volumes are nested.
func (g *Group) link() {
	var uses []use
	for _, lv := range g.LVs {
		for i := range lv.Segments {
			if lv.Fault != nil {
				break
			}
			uses = append(uses, g.usesOf(lv, &lv.Segments[i])...)
		}
	}
	g.findShared(uses)
	g.findSameDevice()
	for _, lv := range g.LVs {
		for i := range lv.Segments {
			if s := &lv.Segments[i]; s.Type == "snapshot" && lv.Fault == nil {
				g.linkSnapshot(lv, s)
			}
			if s := lv.thin(); s != nil && s.Merge != "" && g.lvs[s.Merge] != nil {
				g.lvs[s.Merge].merging = lv.Name
			}
		}
	}
}

// usesOf returns what a segment is made of. If it names something that is missing, or not large
// enough, that becomes the Fault of its volume.
func (g *Group) usesOf(lv *LV, s *Segment) (all []use) {
	add := func(name string, start, count int64, whole bool) {
		u := use{lv: g.lvs[name], start: start, count: count, by: lv, pos: s.pos}
		extents := int64(0)
		if m := g.pvs[name]; m != nil && !whole {
			u.m, u.lv = m, nil
			extents = m.Extents
		} else if u.lv != nil {
			extents = u.lv.extents
			if whole {
				u.start, u.count = 0, extents
			}
		}
		switch {
		case u.m == nil && u.lv == nil:
			g.named(lv, s, name)
		case u.lv != nil && u.lv.Fault != nil && u.lv.extents == 0:
			// Its size is not known; opening it tells why.
		case u.start > extents || u.count > extents-u.start || whole && count > extents:
			lv.fail(textError(s.pos, max(start, count), "%s needs extents that %s, of %d extents, does not have", lv.Name, name, extents))
		default:
			all = append(all, u)
		}
	}
	if s.Refused != "" {
		return nil
	}
	switch n := int64(len(s.Areas)); s.Type {
	case "striped":
		for _, a := range s.Areas {
			add(a.Name, a.Extent, s.Count/n, false)
		}
	case "mirror":
		for _, a := range s.Areas {
			add(a.Name, a.Extent, s.Count, false)
		}
		if s.MirrorLog != "" {
			add(s.MirrorLog, 0, 0, true)
		}
	case "thin-pool":
		add(s.Data, 0, s.Count, true)
		add(s.Metadata, 0, 1, true)
	case "snapshot":
		add(s.Store, 0, 1, true)
		g.named(lv, s, s.Origin)
	case "thin":
		if s.ExternalOrigin != "" {
			g.named(lv, s, s.ExternalOrigin)
		}
		if p := g.lvs[s.ThinPool]; p == nil || p.Fault == nil && (len(p.Segments) != 1 || p.Segments[0].Type != "thin-pool") {
			lv.fail(textError(s.pos, s.ThinPool, "%s names a thin pool that is none", lv.Name))
		}
	}
	for _, name := range slices.Concat(s.Images, s.Metas) {
		add(name, 0, 1, true)
	}
	return all
}

// named checks that a volume exists that a segment names and shares with others.
func (g *Group) named(lv *LV, s *Segment, name string) {
	if g.lvs[name] == nil {
		lv.fail(textError(s.pos, name, "%s names a volume that is not there", lv.Name))
	}
}

// findShared sets the Fault of volumes that share extents.
func (g *Group) findShared(uses []use) {
	key := func(u use) string {
		if u.m != nil {
			return "p" + u.m.Name
		}
		return "l" + u.lv.Name
	}
	slices.SortStableFunc(uses, func(a, b use) int {
		return cmp.Or(cmp.Compare(key(a), key(b)), cmp.Compare(a.start, b.start))
	})
	for i := 1; i < len(uses); i++ {
		a, b := uses[i-1], uses[i]
		if key(a) != key(b) || b.start >= a.start+a.count || b.count == 0 {
			continue
		}
		b.by.fail(textError(b.pos, b.start, "%s uses extents of %s that %s uses too", b.by.Name, key(b)[1:], a.by.Name))
		a.by.fail(textError(a.pos, a.start, "%s uses extents of %s that %s uses too", a.by.Name, key(a)[1:], b.by.Name))
		// Compare the next one with the one that reaches further.
		if a.start+a.count > b.start+b.count {
			uses[i] = a
		}
	}
}

// findSameDevice sets the Fault of volumes that have the same number in one pool.
func (g *Group) findSameDevice() {
	type device struct {
		pool string
		id   int64
	}
	first := map[device]*LV{}
	for _, lv := range g.LVs {
		s := lv.thin()
		if s == nil || lv.Fault != nil {
			continue
		}
		d := device{s.ThinPool, s.DeviceID}
		if o := first[d]; o != nil {
			lv.fail(textError(s.pos, s.DeviceID, "%s and %s have one device_id in pool %s", o.Name, lv.Name, s.ThinPool))
			o.fail(lv.Fault)
			continue
		}
		first[d] = lv
	}
}

// linkSnapshot links the store of a thick snapshot, whose name users see, to the segment that names
// it.
func (g *Group) linkSnapshot(lv *LV, s *Segment) {
	store := g.lvs[s.Store]
	if store.Snapshot != nil {
		return // findShared has set the Fault of both
	}
	store.Snapshot, store.SnapshotSize = s, lv.Size
	if s.Merging && g.lvs[s.Origin] != nil {
		g.lvs[s.Origin].merging = store.Name
	}
}

// RefusedError is the reason why a volume is not read although its metadata is well formed.
type RefusedError struct {
	Volume string // such as vg0/vm1
	Reason string
}

func (e *RefusedError) Error() string { return e.Volume + ": not read: " + e.Reason }

func (lv *LV) refuse(reason string) error { return &RefusedError{lv.FullName(), reason} }

// MissingError means that a volume lies on physical volumes that the caller did not supply, or that
// must not be read.
type MissingError struct {
	Volume string
	PV     string
	Reason string
}

func (e *MissingError) Error() string {
	return e.Volume + ": physical volume " + e.PV + ": " + e.Reason
}

func (lv *LV) formatError(value any, msg string) error {
	return &sparse.FormatError{Struct: "logical volume " + lv.FullName(), Off: -1, Value: value, Msg: msg}
}
