package lvm

import (
	"encoding/binary"
	"fmt"
	"math"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

const (
	raidMagic     = 0x64526d44 // DmRd
	raidSuperSize = 148        // struct dm_raid_superblock, as far as it is read
	raidComplete  = math.MaxUint64

	raidReshaping = 1 // SB_FLAG_RESHAPE_ACTIVE
)

// raidSuper is the superblock at the start of a volume of raid metadata
// (struct dm_raid_superblock in drivers/md/dm-raid.c).
type raidSuper struct {
	compat    uint32 // bit 0: the fields from flags on are there
	devices   uint32
	position  uint32
	events    uint64
	failed    uint64 // one bit for each image
	recovery  uint64 // sectors that have been rebuilt; all ones: all
	resync    uint64 // sectors that have been synchronized; all ones: all
	level     uint32
	algorithm uint32
	stripe    uint32 // in sectors
	flags     uint32
	dataOff   uint64 // in sectors
}

// decodeRaidSuper decodes a superblock.
//
//	0 magic  4 compatible features  8 devices  12 position  16 events
//	24 failed devices  32 recovery offset  40 resync offset
//	48 level  52 layout  56 stripe sectors
//	60 flags  64 reshape position  72 new level, layout, stripe, delta
//	88 array sectors  96 data offset  104 new data offset  112 sectors
//	120 more failed devices  144 incompatible features
func decodeRaidSuper(b []byte) (s raidSuper, err error) {
	le := binary.LittleEndian
	if magic := le.Uint32(b); magic != raidMagic {
		return s, &sparse.FormatError{Struct: "raid superblock", Field: "magic", Value: magic, Msg: "not that of dm-raid"}
	}
	s = raidSuper{
		compat:    le.Uint32(b[4:]),
		devices:   le.Uint32(b[8:]),
		position:  le.Uint32(b[12:]),
		events:    le.Uint64(b[16:]),
		failed:    le.Uint64(b[24:]),
		recovery:  le.Uint64(b[32:]),
		resync:    le.Uint64(b[40:]),
		level:     le.Uint32(b[48:]),
		algorithm: le.Uint32(b[52:]),
		stripe:    le.Uint32(b[56:]),
	}
	if s.compat&1 != 0 {
		s.flags, s.dataOff = le.Uint32(b[60:]), le.Uint64(b[96:])
		if incompat := le.Uint32(b[144:]); incompat != 0 {
			return s, &sparse.FormatError{Struct: "raid superblock", Field: "incompatible features", Value: incompat, Msg: "not known"}
		}
	}
	return s, nil
}

// validate compares a superblock with the segment that it belongs to.
func (s *raidSuper) validate(seg *Segment, position int) error {
	l := raidLevels[seg.Type]
	algorithm := l.algorithm
	if l.name == "raid10" {
		algorithm = 0x100 | uint32(seg.DataCopies) // one far copy, DataCopies near ones
	}
	fault := func(field string, value any, msg string) error {
		return &sparse.FormatError{Struct: fmt.Sprintf("raid superblock %d", position), Field: field, Value: value, Msg: msg}
	}
	switch {
	case int(s.devices) != len(seg.Images):
		return fault("devices", s.devices, fmt.Sprintf("not the %d of the group's text", len(seg.Images)))
	case int(s.position) != position:
		return fault("position", s.position, "not its place in the group's text")
	case s.flags&raidReshaping != 0 || s.dataOff != 0:
		return fault("flags", s.flags, "the array is being reshaped")
	case s.level != l.level:
		return fault("level", s.level, fmt.Sprintf("not the %d of %s", l.level, seg.Type))
	case l.name != "raid1" && l.name != "raid0" && s.algorithm != algorithm:
		return fault("layout", s.algorithm, fmt.Sprintf("not the %#x of %s", algorithm, seg.Type))
	case l.name != "raid1" && int64(s.stripe)*SectorSize != seg.StripeSize:
		return fault("stripe size", s.stripe, fmt.Sprintf("not the %d sectors of the group's text", seg.StripeSize/SectorSize))
	}
	return nil
}

// raidHealth returns for each image the reason why it must not be read, or "" if it may be. metas
// are the volumes with the superblocks, nil for one that is lost. synced is false while the images
// are still being made equal.
//
// The newest superblock names the devices that failed. A superblock that is more than one event
// older has missed what happened since. One that is all zeros belongs to a device that was never
// part of the array. But if all of them are, the array was never active.
func raidHealth(seg *Segment, metas []sparse.View) (lost []string, synced bool, err error) {
	lost = make([]string, len(seg.Images))
	supers := make([]*raidSuper, len(metas))
	var newest *raidSuper
	for i, v := range metas {
		if v == nil {
			continue
		}
		b := make([]byte, raidSuperSize)
		if err := binfmt.Fill(v, v.Size(), "raid superblock", b, 0); err != nil {
			return nil, false, err
		}
		if sparse.IsZero(b) {
			continue
		}
		s, err := decodeRaidSuper(b)
		if err == nil {
			err = s.validate(seg, i)
		}
		if err != nil {
			return nil, false, fmt.Errorf("%s: %w", seg.Metas[i], err)
		}
		supers[i] = &s
		if newest == nil || s.events > newest.events {
			newest = &s
		}
	}
	if newest == nil {
		return lost, true, nil
	}
	for i, s := range supers {
		switch {
		case metas[i] == nil:
			lost[i] = "its superblock is lost"
		case s == nil:
			lost[i] = "its superblock was never written"
		case newest.failed>>i&1 != 0:
			lost[i] = "it failed"
		case s.events+1 < newest.events:
			lost[i] = fmt.Sprintf("it is at event %d, the array at %d", s.events, newest.events)
		case s.recovery != raidComplete:
			lost[i] = fmt.Sprintf("only its first %d sectors were rebuilt", s.recovery)
		}
	}
	return lost, newest.resync == raidComplete, nil
}
