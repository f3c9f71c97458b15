package lvm

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// ExtentArea is where a stripe or a mirror leg begins: an extent of a PV, given by its name in the
// text, or of another volume.
type ExtentArea struct {
	Name   string // of a physical volume (Member.Name) or of a volume
	Extent int64  // counted from 0
}

// Segment is a run of extents of a volume. Its type decides which fields are set; they are named
// after their keys in the text.
type Segment struct {
	Start, Count int64 // in extents
	Type         string
	TypeFlags    []string // the parts after a + in the type

	Areas      []ExtentArea // striped: the stripes; mirror: its legs
	StripeSize int64        // in bytes
	MirrorLog  string

	Images     []string // raid: the volumes with data, in order
	Metas      []string // raid: the volumes with superblocks; none, or one for each image
	DataCopies int64    // raid10
	Reshaping  string   // raid: the field or flag that shows it

	Origin    string // snapshot, thin
	Store     string // snapshot: cow_store or merging_store
	Merging   bool   // snapshot: the key was merging_store
	ChunkSize int64  // snapshot, thin-pool: in bytes

	Metadata      string // thin-pool
	Data          string // thin-pool
	TransactionID int64  // thin-pool: the current one; thin: of its creation
	Messages      int    // thin-pool: number of messages waiting to be sent
	Discards      string // thin-pool
	ZeroNewBlocks bool   // thin-pool

	ThinPool       string // thin
	DeviceID       int64  // thin
	ExternalOrigin string // thin
	Merge          string // thin: the volume it is to be merged into

	// Refused is why a segment of this type cannot be read; "" if it can.
	Refused string

	pos Pos
}

// maxDeviceID is the largest number of a thin volume (24 bits in dm-thin).
const maxDeviceID = 1<<24 - 1

// refusedTypes are types that are known but not read, because newer bytes than those of the volume
// below them may lie elsewhere.
var refusedTypes = map[string]string{
	"cache":      "a cache may hold newer data than its origin",
	"cache-pool": "a cache pool is no volume",
	"writecache": "a writecache may hold newer data than its origin",
	"integrity":  "integrity tags and journal are not read",
	"vdo":        "VDO's deduplication is not read",
	"vdo-pool":   "VDO's deduplication is not read",
}

func decodeSegment(s *Section) (Segment, error) {
	f := fields{s: s}
	seg := Segment{
		Start: f.integer("start_extent", 0, maxExtents, true),
		Count: f.integer("extent_count", 1, maxExtents, true),
		pos:   s.Pos,
	}
	name := f.text("type", true)
	if f.err != nil {
		return seg, f.err
	}
	all := strings.Split(name, "+")
	seg.Type, seg.TypeFlags = all[0], all[1:]
	for _, flag := range seg.TypeFlags {
		switch {
		case flag == "CROP_METADATA" && seg.Type == "thin-pool":
		case slices.Contains(reshapeFlags, flag):
			seg.Reshaping = flag
		default:
			seg.Refused = fmt.Sprintf("%q has a flag that is not known", name)
		}
	}
	seg.decodeType(&f)
	return seg, f.err
}

// maxImages is the number of devices in a superblock's list of failed ones, and LVM's own limit.
const maxImages = 64

// reshapeFlags follow a raid type while the array is being reshaped.
var reshapeFlags = []string{"RESHAPE", "RESHAPE_DATA_OFFSET", "RESHAPE_DELTA_DISKS_PLUS", "RESHAPE_DELTA_DISKS_MINUS", "REMOVE_AFTER_RESHAPE"}

func (s *Segment) decodeType(f *fields) {
	why, refused := refusedTypes[s.Type]
	switch {
	case refused:
		s.Refused = fmt.Sprintf("%s: %s", s.Type, why)
	case s.Type == "striped", s.Type == "linear":
		s.Type = "striped"
		s.decodeStriped(f)
	case s.Type == "mirror":
		s.Areas = f.areas("mirrors", f.integer("mirror_count", 1, maxItems, true))
		s.MirrorLog = f.text("mirror_log", false)
	case strings.HasPrefix(s.Type, "raid"):
		if raidLevels[s.Type].name == "" {
			s.Refused = fmt.Sprintf("%q is a layout that is not known", s.Type)
			return
		}
		s.decodeRAID(f)
	case s.Type == "snapshot":
		s.decodeSnapshot(f)
	case s.Type == "thin-pool":
		s.decodePool(f)
	case s.Type == "thin":
		s.decodeThin(f)
	case s.Type == "error", s.Type == "zero":
	default:
		s.Refused = fmt.Sprintf("%q is a type that is not known", s.Type)
	}
}

func (s *Segment) decodeStriped(f *fields) {
	n := int64(1)
	if f.has("stripe_count") {
		n = f.integer("stripe_count", 1, maxItems, true)
	}
	s.Areas = f.areas("stripes", n)
	if f.err != nil || n == 1 {
		return
	}
	if s.Count%n != 0 {
		f.fail(textError(s.pos, s.Count, "%d stripes do not divide the extents", n))
	}
	s.StripeSize = f.integer("stripe_size", 1, math.MaxUint32, true) * SectorSize
}

// areas returns a list of n pairs of a name and an extent.
func (f *fields) areas(key string, n int64) []ExtentArea {
	v, ok := f.value(key, List, "a list", true)
	if !ok {
		return nil
	}
	if int64(len(v.List)) != 2*n {
		f.fail(textError(v.Pos, len(v.List), "%s does not have %d pairs", key, n))
		return nil
	}
	all := make([]ExtentArea, n)
	for i := range all {
		name, extent := v.List[2*i], v.List[2*i+1]
		if name.Kind != String || extent.Kind != Int || extent.Int < 0 || extent.Int > maxExtents {
			f.fail(textError(name.Pos, nil, "%s: not a name and an extent", key))
			return nil
		}
		all[i] = ExtentArea{name.Text, extent.Int}
	}
	return all
}

// decodeRAID decodes the list that holds the images and, if there are any, the volumes with their
// superblocks. Each of those precedes its image.
func (s *Segment) decodeRAID(f *fields) {
	l := raidLevels[s.Type]
	count := "device_count"
	if !f.has(count) {
		count = "stripe_count" // raid0
	}
	n := f.integer(count, 1, maxItems, true)
	list := "raids"
	if !f.has(list) {
		list = "raid0_lvs"
	}
	for _, name := range f.texts(list, true) {
		if strings.Contains(name, "_rmeta_") {
			s.Metas = append(s.Metas, name)
		} else {
			s.Images = append(s.Images, name)
		}
	}
	s.DataCopies = 1
	switch l.name {
	case "raid1":
	case "raid10":
		s.DataCopies = 2
		if f.has("data_copies") {
			s.DataCopies = f.integer("data_copies", 1, maxItems, true)
		}
		fallthrough
	default:
		s.StripeSize = f.integer("stripe_size", 1, math.MaxUint32, true) * SectorSize
	}
	for _, key := range []string{"data_offset", "reshape_count"} {
		if f.has(key) && s.Reshaping == "" {
			s.Reshaping = key
		}
	}
	switch images := int64(len(s.Images)); {
	case f.err != nil:
	case images != n || len(s.Metas) != 0 && int64(len(s.Metas)) != n:
		f.fail(textError(s.pos, len(s.Images), "images, and %d superblocks, of %d devices", len(s.Metas), n))
	case images > maxImages:
		f.fail(textError(s.pos, n, "more than %d devices", maxImages))
	case images < l.least:
		f.fail(textError(s.pos, n, "not enough devices for %s", s.Type))
	case s.DataCopies > images:
		f.fail(textError(s.pos, s.DataCopies, "more copies than the %d devices", n))
	case s.Start != 0:
		f.fail(textError(s.pos, s.Start, "a raid segment that is not the whole volume"))
	}
}

func (s *Segment) decodeSnapshot(f *fields) {
	s.Origin = f.text("origin", true)
	s.ChunkSize = f.integer("chunk_size", 1, math.MaxUint32, true) * SectorSize
	s.Merging = f.has("merging_store")
	switch {
	case s.Merging && f.has("cow_store"):
		f.fail(textError(s.pos, nil, "both cow_store and merging_store"))
	case s.Merging:
		s.Store = f.text("merging_store", true)
	default:
		s.Store = f.text("cow_store", true)
	}
}

// decodePool decodes a thin pool. The limits are dm-thin's: chunks of 64 KiB to 1 GiB in steps of
// 64 KiB.
func (s *Segment) decodePool(f *fields) {
	s.Metadata, s.Data = f.text("metadata", true), f.text("pool", true)
	s.TransactionID = f.integer("transaction_id", 0, math.MaxInt64, true)
	chunk := f.integer("chunk_size", 128, 2097152, true)
	if f.err == nil && chunk%128 != 0 {
		f.fail(textError(f.s.item("chunk_size").Pos, chunk, "chunk_size is not a multiple of 128 sectors"))
	}
	s.ChunkSize = chunk * SectorSize
	if s.Discards = "ignore"; f.has("discards") {
		s.Discards = f.text("discards", true)
	}
	s.ZeroNewBlocks = f.integer("zero_new_blocks", 0, 1, false) == 1
	for _, it := range f.s.Items {
		if it.Section != nil && strings.HasPrefix(it.Key, "message") {
			s.Messages++
		}
	}
}

func (s *Segment) decodeThin(f *fields) {
	s.ThinPool = f.text("thin_pool", true)
	s.TransactionID = f.integer("transaction_id", 0, math.MaxInt64, true)
	s.DeviceID = f.integer("device_id", 0, maxDeviceID, true)
	s.Origin = f.text("origin", false)
	s.ExternalOrigin = f.text("external_origin", false)
	s.Merge = f.text("merge", false)
	if s.Start != 0 {
		f.fail(textError(s.pos, s.Start, "a thin segment that is not the whole volume"))
	}
}
