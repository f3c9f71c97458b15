package lvm

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"cbt/sparse"
)

// Disk is a physical volume supplied by the caller.
type Disk struct {
	Name string // for messages
	PV   *PV    // result of ReadPV; if nil, Assemble reads it
	// R is read for the content of volumes, and again by Volume.Recheck. If it is a sparse.View,
	// its holes become holes of volumes. It must be safe for concurrent use.
	R    io.ReaderAt
	Size int64 // in bytes
}

func (d *Disk) view() sparse.View {
	if v, ok := d.R.(sparse.View); ok && v.Size() == d.Size {
		return v
	}
	return sparse.Plain(d.R, d.Size)
}

// DiskError is an error with the name of the disk that caused it.
type DiskError struct {
	Name string
	Err  error
}

func (e *DiskError) Error() string { return e.Name + ": " + e.Err.Error() }

func (e *DiskError) Unwrap() error { return e.Err }

// candidate is a text, with the disks that it was read from.
type candidate struct {
	g    *Group
	from []int // indexes of disks
}

// Assemble finds the volume groups on the given disks. If a group has several texts, the one with
// the highest sequence number counts. Disks with an older text are still read, as long as the
// newest text lists them. A Member has Missing set if its physical volume is on none of the disks,
// or on two, or belongs to another group according to its own text. Groups are sorted by name, then
// UUID; several may have the same name.
//
// Assemble fails with a *DiskError in three cases: a disk is not a physical volume; the metadata of
// a disk are damaged and no group lists it; or two different texts have the same sequence number.
func Assemble(disks []Disk) ([]*Group, error) {
	disks = slices.Clone(disks)
	var texts []candidate
	faults := make([]error, len(disks))
	for i := range disks {
		d := &disks[i]
		if d.PV == nil {
			pv, err := ReadPV(d.R, d.Size)
			if err != nil {
				return nil, &DiskError{d.Name, err}
			}
			d.PV = pv
		}
		for _, m := range d.PV.MetadataAreas {
			if m.Fault != nil {
				faults[i] = m.Fault
			}
			if m.Text == nil {
				continue
			}
			j := slices.IndexFunc(texts, func(c candidate) bool { return bytes.Equal(c.g.Text, m.Text) })
			if j < 0 {
				g, err := parseGroup(m.Text)
				if err != nil {
					faults[i] = err
					continue
				}
				j, texts = len(texts), append(texts, candidate{g: g})
			}
			if !slices.Contains(texts[j].from, i) {
				texts[j].from = append(texts[j].from, i)
			}
		}
	}
	groups, err := newest(disks, texts)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		g.g.place(disks, texts, faults)
	}
	for i, fault := range faults {
		if fault != nil {
			return nil, &DiskError{disks[i].Name, fault}
		}
	}
	var all []*Group
	for _, c := range groups {
		all = append(all, c.g)
	}
	slices.SortFunc(all, func(a, b *Group) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

func parseGroup(text []byte) (*Group, error) {
	root, err := ParseText(text)
	if err != nil {
		return nil, err
	}
	g, err := decodeGroup(root)
	if err != nil {
		return nil, err
	}
	g.Text = text
	return g, nil
}

// newest returns the text with the highest sequence number of each group.
func newest(disks []Disk, texts []candidate) ([]candidate, error) {
	var best []candidate
	for _, c := range texts {
		i := slices.IndexFunc(best, func(b candidate) bool { return b.g.ID == c.g.ID })
		switch {
		case i < 0:
			best = append(best, c)
		case c.g.SeqNo > best[i].g.SeqNo:
			best[i] = c
		case c.g.SeqNo == best[i].g.SeqNo:
			return nil, &DiskError{disks[c.from[0]].Name, &sparse.FormatError{Struct: "LVM metadata of " + c.g.Name, Off: -1, Field: "seqno", Value: c.g.SeqNo,
				Msg: "another text with this number is on " + disks[best[i].from[0]].Name}}
		}
	}
	for _, b := range best {
		for _, c := range texts {
			if c.g.ID != b.g.ID || c.g == b.g {
				continue
			}
			for _, i := range c.from {
				b.g.warn("%s has an old text: sequence number %d, not %d", disks[i].Name, c.g.SeqNo, b.g.SeqNo)
			}
		}
	}
	return best, nil
}

// place finds the disks of the group's members. Faults in these disks' own metadata become
// warnings.
func (g *Group) place(disks []Disk, texts []candidate, faults []error) {
	for _, m := range g.PVs {
		var on []int
		var elsewhere string
		for i := range disks {
			if disks[i].PV.UUID != m.ID {
				continue
			}
			if other := otherGroup(texts, i, g); other != nil {
				elsewhere = fmt.Sprintf("%s belongs to the group %s (%s) by its own text", disks[i].Name, other.Name, other.ID)
				continue
			}
			on = append(on, i)
			g.disks = append(g.disks, disks[i])
			if faults[i] != nil {
				g.warn("%s: %v", disks[i].Name, faults[i])
				faults[i] = nil
			}
			for _, w := range disks[i].PV.Warnings {
				if msg := disks[i].Name + ": " + w; !slices.Contains(g.Warnings, msg) {
					g.Warnings = append(g.Warnings, msg)
				}
			}
		}
		missing := ""
		switch {
		case len(on) > 1:
			names := make([]string, len(on))
			for j, i := range on {
				names[j] = disks[i].Name
			}
			missing = "the same physical volume is on " + strings.Join(names, " and on ")
		case len(on) == 1:
			m.Disk = &disks[on[0]]
		case elsewhere != "":
			missing = elsewhere
		default:
			missing = "not among the disks"
		}
		if missing != "" {
			m.Missing = missing
		}
		if m.Missing != "" {
			g.warn("physical volume %s: %s", m, m.Missing)
		}
	}
}

// otherGroup returns the group of the text on the disk itself, if that is not g, and nil otherwise.
func otherGroup(texts []candidate, disk int, g *Group) *Group {
	var other *Group
	for _, c := range texts {
		if !slices.Contains(c.from, disk) {
			continue
		}
		if c.g.ID == g.ID {
			return nil
		}
		other = c.g
	}
	return other
}

// ErrNoGroup means that there is no volume group of that name or UUID.
var ErrNoGroup = errors.New("no such volume group")

// FindGroup returns the group with the given name, or with the given UUID, with or without dashes.
// If several groups have the name, it returns an error with their UUIDs.
func FindGroup(groups []*Group, name string) (*Group, error) {
	var found []*Group
	for _, g := range groups {
		if g.ID == name || strings.ReplaceAll(g.ID, "-", "") == name {
			return g, nil
		}
		if g.Name == name {
			found = append(found, g)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: %q", ErrNoGroup, name)
	case 1:
		return found[0], nil
	}
	ids := make([]string, len(found))
	for i, g := range found {
		ids[i] = g.ID
	}
	return nil, fmt.Errorf("%d volume groups have the name %q: use a UUID: %s", len(found), name, strings.Join(ids, ", "))
}
