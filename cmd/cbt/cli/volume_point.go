package cli

import (
	"context"
	"encoding/binary"
	"slices"

	"cbt/internal/infile"
	"cbt/internal/store"
	"cbt/lvm"
	"cbt/lvm/thin"
)

// The points of volumes; see point.go.
const (
	thinPointV1   = "cbt point 1: thin volume"
	thickPointV1  = "cbt point 1: thick snapshot"
	volumePointV1 = "cbt point 1: logical volume"
)

// point is the point of a volume, "" if it is not frozen. frozen is what the
// user says; related is the volume that it is compared with, which saves
// reading what they share.
//
// A snapshot's point is the same on the host and in a copy of its disks. Any
// other volume is frozen only as the files are that hold its group.
func (v *volume) point(ctx context.Context, frozen bool, related *source) (string, error) {
	return v.pointIf(ctx, frozen, related, nil)
}

// pointIf is point for those who only want to know whether the volume is at one
// of some points, which wanted says: of others it need not read the mapping
// trees, and may return "". nil wants all.
func (v *volume) pointIf(ctx context.Context, frozen bool, related *source, wanted func(string) bool) (string, error) {
	var p string
	var err error
	lv := v.LV()
	switch {
	case v.Thin() != nil && (frozen || !v.writable()):
		p, err = v.thinPoint(ctx, related, wanted)
	case lv.Snapshot != nil && (frozen || !v.writable() && readOnly(lv)):
		b := appendVolume(nil, thickPointV1, lv)
		p = point(formatVolume, infile.AppendString(b, lv.Snapshot.Origin))
	}
	if err != nil || p != "" || v.pvs == nil {
		return p, err
	}
	b := appendVolume(nil, volumePointV1, lv)
	var times pointTimes
	for _, s := range v.pvs.sources {
		if s.Point == "" {
			return "", nil
		}
		b = infile.AppendString(b, store.WithoutTimes(s.Point))
		times.addPoint(s.Point)
	}
	return times.complete(point(formatVolume, b)), nil
}

// writable says that the volume is in use and may be written to at any time.
func (v *volume) writable() bool { return v.live != nil && v.live.writable }

// readOnly says that LVM makes the volume a read-only device.
func readOnly(lv *lvm.LV) bool { return !slices.Contains(lv.Status, "WRITE") }

// thinPoint is the point of a thin volume that nobody wrote to since it was
// made: of a snapshot. Its record says when that was, and how much it maps; the
// root of its mapping tree changes with every discard, also where copies of one
// pool went different ways.
func (v *volume) thinPoint(ctx context.Context, related *source, wanted func(string) bool) (string, error) {
	p, err := v.thinIdentity(ctx)
	if err != nil || wanted != nil && !wanted(p) {
		return "", err
	}
	var others []*thin.View
	if related != nil && related.vol != nil && related.vol.Thin() != nil {
		others = append(others, related.vol.Thin())
	}
	written, err := v.Thin().WrittenSinceCreation(ctx, others...)
	if err != nil || written {
		return "", err
	}
	return p, nil
}

// thinIdentity is what the point of a thin volume is if nobody wrote to it.
func (v *volume) thinIdentity(ctx context.Context) (string, error) {
	b := appendVolume(nil, thinPointV1, v.LV())
	d := v.Thin().Device()
	for _, n := range []uint64{uint64(d.ID), d.TransactionID, uint64(d.CreationTime), d.MappedBlocks} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	print, err := v.Thin().Fingerprint()
	if err != nil {
		return "", err
	}
	b = binary.BigEndian.AppendUint64(b, print.Root)
	b = binary.BigEndian.AppendUint32(b, print.RootChecksum)
	if external, ok := v.Thin().External().(*lvm.Volume); ok {
		below := &volume{Volume: external, pvs: v.pvs}
		p := ""
		switch {
		case external.Thin() != nil:
			p, err = below.thinPoint(ctx, nil, nil)
		case readOnly(external.LV()):
			p = point(formatVolume, appendVolume(nil, volumePointV1, external.LV()))
		}
		if err != nil || p == "" {
			return "", err
		}
		b = infile.AppendString(b, p)
	}
	return point(formatVolume, b), nil
}

// appendVolume encodes what makes a volume this one: names may be given again,
// UUIDs are not.
func appendVolume(b []byte, kind string, lv *lvm.LV) []byte {
	b = infile.AppendString(b, kind)
	b = infile.AppendString(b, lv.Group().ID)
	b = infile.AppendString(b, lv.ID)
	b = binary.BigEndian.AppendUint64(b, uint64(lv.CreationTime))
	return binary.BigEndian.AppendUint64(b, uint64(lv.VolumeSize()))
}
