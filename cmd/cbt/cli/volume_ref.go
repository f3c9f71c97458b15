package cli

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/text"
)

// volumeOptions say where logical volumes and devices of thin pools are.
type volumeOptions struct {
	PVs          []string // --pv
	PVFormat     string   // --pv-format
	ThinMetadata string   // --thin-metadata
	ThinData     string   // --thin-data
	Wait         waitValue
}

func (o *volumeOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.PVs, "pv", nil, "volumes are on the physical volume `REF`, not on this host: a device, a raw file, a disk whose partitions hold some, or IMAGE@SNAPSHOT (repeatable)")
	fs.StringVar(&o.PVFormat, "pv-format", "", "`FORMAT` of what --pv names: qcow2 or raw (default: by its header)")
	fs.StringVar(&o.ThinMetadata, "thin-metadata", "", "`REF` that holds the metadata of the thin pool that thin:ID means")
	fs.StringVar(&o.ThinData, "thin-data", "", "`REF` that holds that pool's data")
	o.Wait.d = defaultWait
	fs.Var(&o.Wait, "wait", "wait this `TIME` for other runs on the same thin pool (30s, 10m)")
}

// volumeRef is what lvm:VG/LV, thin:ID and /dev/VG/LV mean.
type volumeRef struct {
	group, name string
	uuid        string // of the volume, without dashes, where the device in use tells
	at          bool   // an @ follows, and
	snapshot    string // the name of a snapshot of the image in the volume
	thin        bool
	id          uint32 // of a device of a bare pool
}

const (
	lvmPrefix  = "lvm:"
	thinPrefix = "thin:"
	maxThinID  = 1<<24 - 1
)

// parseVolumeRef says whether ref names a volume. A path below /dev does where
// --pv says whose groups are meant, or where it leads to a volume in use.
func (o *opener) parseVolumeRef(ref string, opt refOptions) (v volumeRef, ok bool, err error) {
	switch {
	case opt.Path:
		return v, false, nil
	case strings.HasPrefix(ref, thinPrefix):
		id, err := strconv.ParseUint(strings.TrimPrefix(ref, thinPrefix), 10, 32)
		switch {
		case err != nil || id > maxThinID:
			return v, true, fail.Usage("%s: a device of a thin pool has a number up to %d", text.Printable(ref), maxThinID)
		case o.ThinMetadata == "":
			return v, true, fail.Usage("%s: --thin-metadata says which pool's device is meant", text.Printable(ref))
		}
		return volumeRef{thin: true, id: uint32(id)}, true, refuseSnapshotOf(ref, opt)
	case strings.HasPrefix(ref, lvmPrefix):
		path, snapshot, at := strings.Cut(strings.TrimPrefix(ref, lvmPrefix), "@")
		v, ok = splitVolume(path)
		if v.at, v.snapshot = at, snapshot; !ok {
			return v, true, fail.Usage("%s: must be lvm:VG/LV (cbt info lvm:VG lists the volumes of a group)", text.Printable(ref))
		}
		return v, true, o.refuseImageIn(ref, v, opt)
	case strings.HasPrefix(ref, "/dev/"):
		path, snapshot, at := strings.Cut(ref, "@")
		// A volume that is not active has no device.
		if v, ok = volumeOfPath(path); !ok || len(o.PVs) == 0 && infile.Exists(path) {
			if v, ok = hostVolumeAt(path); ok && len(o.PVs) > 0 {
				return v, true, fail.Usage("%s: is a volume of this host, which --pv leaves out", ref)
			}
		}
		if v.at, v.snapshot = at, snapshot; ok {
			err = o.refuseImageIn(ref, v, opt)
		}
		return v, ok, err
	}
	return v, false, nil
}

// refuseImageIn refuses what names a snapshot of an image in a volume, unless
// the volume is said to hold one.
func (o *opener) refuseImageIn(ref string, v volumeRef, opt refOptions) error {
	flag, forced := o.formatOf(opt)
	switch {
	case forced != formatQcow2 && (v.at || opt.Snapshot != "" || opt.SnapshotID != ""):
		return fail.Usage("%s: is a volume: its snapshots are volumes with names of their own (those of a qcow2 image in it go with %s qcow2)", text.Printable(ref), flag)
	case v.at && (opt.Snapshot != "" || opt.SnapshotID != ""):
		return fail.Usage("%s: names a snapshot already", text.Printable(ref))
	case v.at && v.snapshot == "":
		return fail.Usage("%s: no snapshot name after the @", text.Printable(ref))
	}
	return nil
}

// refuseSnapshotOf refuses flags that name a qcow2 snapshot of a bare pool's
// device.
func refuseSnapshotOf(ref string, opt refOptions) error {
	if opt.Snapshot != "" || opt.SnapshotID != "" {
		return fail.Usage("%s: is a volume: its snapshots are volumes with names of their own", text.Printable(ref))
	}
	return nil
}

// splitVolume splits VG/LV.
func splitVolume(s string) (v volumeRef, ok bool) {
	group, name, ok := strings.Cut(s, "/")
	if !ok || group == "" || name == "" || strings.Contains(name, "/") {
		return v, false
	}
	return volumeRef{group: group, name: name}, true
}

// volumeOfPath takes /dev/VG/LV and /dev/mapper/VG-LV apart.
func volumeOfPath(path string) (volumeRef, bool) {
	rest, ok := strings.CutPrefix(filepath.Clean(path), "/dev/")
	if !ok {
		return volumeRef{}, false
	}
	if name, ok := strings.CutPrefix(rest, "mapper/"); ok {
		return splitMapperName(name)
	}
	return splitVolume(rest)
}

// splitMapperName takes VG-LV apart, where LVM writes each - of a name as --.
func splitMapperName(name string) (volumeRef, bool) {
	for i := 0; i < len(name); i++ {
		if name[i] != '-' {
			continue
		}
		if i+1 < len(name) && name[i+1] == '-' {
			i++
			continue
		}
		undo := func(s string) string { return strings.ReplaceAll(s, "--", "-") }
		return splitVolume(undo(name[:i]) + "/" + undo(name[i+1:]))
	}
	return volumeRef{}, false
}
