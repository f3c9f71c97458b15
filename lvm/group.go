package lvm

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"cbt/sparse"
)

// Group is a volume group: the content of its newest text, and the disks that were found for it. It
// is safe for concurrent use.
type Group struct {
	Name         string
	ID           string // UUID, with dashes
	SeqNo        int64  // how often the text has been changed
	ExtentSize   int64  // in bytes
	Status       []string
	Flags        []string
	Tags         []string
	SystemID     string
	LockType     string
	Description  string
	CreationHost string
	CreationTime int64 // of the text, in Unix seconds
	PVs          []*Member
	LVs          []*LV // in the order of the text, sub-volumes included
	// Text is the text that the other fields were read from.
	Text []byte
	// Warnings are one line each, about oddities that do not prevent reading.
	Warnings []string

	lvs   map[string]*LV
	pvs   map[string]*Member // by their names in the text
	disks []Disk             // all disks from the caller that belong to the group
	opener
}

// Member is a physical volume as the text of its group describes it.
type Member struct {
	Name       string // its name in the text, such as pv0
	ID         string // UUID, with dashes
	Device     string // an earlier device path, only a hint
	DeviceSize int64  // in bytes; 0 if the text does not give it
	Start      int64  // of its first extent, in bytes
	Extents    int64  // number of its extents
	Status     []string
	Flags      []string
	// Disk is the disk that holds the physical volume. Missing is why there is none, or why it must
	// not be read; "" if it may be read.
	Disk    *Disk
	Missing string
}

// vgStatus lists the words that a group's status may contain. A reader that does not know a word
// must not touch the group (lib/format_text/flags.c).
var vgStatus = []string{"RESIZEABLE", "READ", "WRITE", "EXPORTED", "CLUSTERED", "SHARED", "PVMOVE", "PARTIAL"}

const (
	maxExtentSectors = math.MaxUint32
	maxExtents       = math.MaxUint32
	maxSectors       = math.MaxInt64 / SectorSize
)

// decodeGroup returns the Group, without disks, of a parsed text. The error is a
// *sparse.FormatError. A fault in one logical volume becomes its Fault.
func decodeGroup(root *Section) (*Group, error) {
	f := fields{s: root}
	if s := f.text("contents", true); f.err == nil && s != "Text Format Volume Group" {
		return nil, textError(root.item("contents").Pos, s, "not the text of a volume group")
	}
	f.integer("version", 1, 1, true)
	g := &Group{
		Description:  f.text("description", false),
		CreationHost: f.text("creation_host", false),
		CreationTime: f.integer("creation_time", 0, math.MaxInt64, false),
		lvs:          map[string]*LV{},
		pvs:          map[string]*Member{},
	}
	if f.err != nil {
		return nil, f.err
	}
	var vg *Item
	for i := range root.Items {
		switch it := &root.Items[i]; {
		case it.Section == nil:
		case vg != nil:
			return nil, textError(it.Pos, it.Key, "a second volume group in one text")
		default:
			vg = it
		}
	}
	if vg == nil {
		return nil, textError(root.Pos, nil, "no volume group")
	}
	if !isName(vg.Key) {
		return nil, textError(vg.Pos, vg.Key, "not a name of a volume group")
	}
	g.Name = vg.Key
	if err := g.decode(vg.Section); err != nil {
		return nil, err
	}
	g.link()
	return g, nil
}

func (g *Group) decode(s *Section) error {
	f := fields{s: s}
	g.ID = f.uuid("id")
	g.SeqNo = f.integer("seqno", 0, math.MaxInt64, true)
	g.Status = f.texts("status", true)
	g.Flags = f.texts("flags", false)
	g.Tags = f.texts("tags", false)
	g.SystemID = f.text("system_id", false)
	g.LockType = f.text("lock_type", false)
	g.ExtentSize = f.integer("extent_size", 1, maxExtentSectors, true) * SectorSize
	if w := unknown(g.Status, vgStatus); w != "" && f.err == nil {
		return textError(s.item("status").Pos, w, "a status that is not known")
	}
	if g.LockType != "" && g.LockType != "none" || slices.Contains(g.Status, "SHARED") || slices.Contains(g.Status, "CLUSTERED") {
		g.warn("the group is shared: other hosts may write to it")
	}
	pvs := f.section("physical_volumes", true)
	lvs := f.section("logical_volumes", false)
	if f.err != nil {
		return f.err
	}
	ids := map[string]bool{}
	for _, it := range pvs.Items {
		if it.Section == nil {
			return textError(it.Pos, it.Key, "not a physical volume")
		}
		m, err := g.decodeMember(it)
		if err != nil {
			return err
		}
		if ids[m.ID] {
			return textError(it.Pos, m.ID, "a second physical volume with this UUID")
		}
		ids[m.ID] = true
		g.PVs = append(g.PVs, m)
		g.pvs[m.Name] = m
	}
	if lvs == nil {
		return nil
	}
	for _, it := range lvs.Items {
		if it.Section == nil {
			return textError(it.Pos, it.Key, "not a logical volume")
		}
		lv := g.decodeLV(it)
		g.LVs = append(g.LVs, lv)
		g.lvs[lv.Name] = lv
	}
	return nil
}

func (g *Group) decodeMember(it Item) (*Member, error) {
	f := fields{s: it.Section}
	m := &Member{
		Name:       it.Key,
		ID:         f.uuid("id"),
		Device:     f.text("device", false),
		DeviceSize: f.integer("dev_size", 0, maxSectors, false) * SectorSize,
		Start:      f.integer("pe_start", 0, maxSectors, true) * SectorSize,
		Extents:    f.integer("pe_count", 0, maxExtents, true),
		Status:     f.texts("status", false),
		Flags:      f.texts("flags", false),
	}
	if f.err == nil && m.Extents > (math.MaxInt64-m.Start)/g.ExtentSize {
		f.fail(textError(it.Section.item("pe_count").Pos, m.Extents, "extents past 2^63 bytes"))
	}
	if slices.Contains(m.Status, "MISSING") || slices.Contains(m.Flags, "MISSING") {
		m.Missing = "the group's text calls it missing: what it holds may be old"
	}
	return m, f.err
}

// String returns a name of the member for messages.
func (m *Member) String() string {
	if m.Device == "" {
		return fmt.Sprintf("%s (%s)", m.Name, m.ID)
	}
	return fmt.Sprintf("%s (%s, once %s)", m.Name, m.ID, m.Device)
}

// uuid returns a required UUID.
func (f *fields) uuid(key string) string {
	s := f.text(key, true)
	if f.err == nil && !isUUID(s) {
		f.fail(textError(f.s.item(key).Pos, s, "not a UUID"))
	}
	return s
}

// isName reports whether s is valid as the name of a group or a volume.
func isName(s string) bool {
	if s == "" || len(s) > 127 || s[0] == '-' || s == "." || s == ".." {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune(".+_-", r))
	})
}

// unknown returns the first of words that is not in known, or "".
func unknown(words, known []string) string {
	for _, w := range words {
		if !slices.Contains(known, w) {
			return w
		}
	}
	return ""
}

// LV returns the volume of that name, or nil if there is none. As in LVM, a thick snapshot has the
// name of the volume that stores its exceptions.
func (g *Group) LV(name string) *LV { return g.lvs[name] }

func (g *Group) warn(format string, args ...any) {
	g.Warnings = append(g.Warnings, fmt.Sprintf(format, args...))
}

// dataAt returns count extents of a member, from extent on, as a view of its disk.
func (m *Member) dataAt(extent, count, extentSize int64) (sparse.View, error) {
	off, n := m.Start+extent*extentSize, count*extentSize
	if m.Disk.Size < off+n {
		return nil, &sparse.FormatError{Struct: fmt.Sprintf("PV %s on %s", m.Name, m.Disk.Name), Off: off, Msg: fmt.Sprintf("%d bytes of extents there are not inside the disk of %d bytes", n, m.Disk.Size)}
	}
	return section(m.Disk.view(), off, n), nil
}
