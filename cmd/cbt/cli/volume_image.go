package cli

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"cbt/internal/dm"
	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/record"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/lvm"
)

// A qcow2 image in a logical volume is an image like any other. The volume
// stands for its file: while it is in use its device does, which has QEMU's
// locks and whose writes the kernel counts; else its content, read from the
// disks of its group or from those that --pv names.

// holdsImage says that a volume that opt is about holds a qcow2 image.
func (o *opener) holdsImage(opt refOptions) bool {
	_, forced := o.formatOf(opt)
	return forced == formatQcow2
}

// openImageIn opens the image in a volume, or a snapshot of it.
func (o *opener) openImageIn(ctx context.Context, ref string, v volumeRef, opt refOptions) (*source, error) {
	r, f, err := o.locateIn(ctx, ref, v, opt)
	if err != nil {
		return nil, err
	}
	img, err := o.load(ctx, f, formatQcow2, policy{allow: o.allow}, nil, !r.byName && !r.byID)
	if err != nil {
		return nil, err
	}
	s := &source{Ref: ref, Path: r.path, Format: formatQcow2, Img: img.qcow, img: img}
	if !r.byName && !r.byID {
		o.openActive(s)
		return s, nil
	}
	return s, o.openSnapshot(s, r, opt)
}

// locateAny is locate, for volumes that hold an image too.
func (o *opener) locateAny(ctx context.Context, ref string, opt refOptions) (r reference, f *file, format string, err error) {
	if o.holdsImage(opt) {
		if v, ok, err := o.parseVolumeRef(ref, opt); err != nil {
			return r, nil, "", err
		} else if ok && !v.thin {
			r, f, err = o.locateIn(ctx, ref, v, opt)
			return r, f, formatQcow2, err
		}
	}
	return o.locate(ref, opt)
}

// locateIn is locate for a volume that holds a qcow2 image.
func (o *opener) locateIn(ctx context.Context, ref string, v volumeRef, opt refOptions) (r reference, f *file, err error) {
	if f, err = o.openCarrier(ctx, ref, v); err != nil {
		return r, nil, err
	}
	flag, forced := o.formatOf(opt)
	if _, err := decideFormat(f, flag, forced); err != nil {
		f.Close()
		return r, nil, err
	}
	r = reference{path: f.Path}
	switch {
	case v.at:
		r.byName, r.want = true, v.snapshot
	case opt.Snapshot != "":
		r.byName, r.want = true, opt.Snapshot
	case opt.SnapshotID != "":
		r.byID, r.want = true, opt.SnapshotID
	}
	return r, f, nil
}

// openCarrier opens a volume as the file that holds an image.
func (o *opener) openCarrier(ctx context.Context, ref string, v volumeRef) (*file, error) {
	lv, err := o.findLV(ctx, v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	if len(o.PVs) == 0 {
		r, _, err := o.host.Device(lv, lvm.LayerVolume)
		if err != nil {
			return nil, hostError(ref, err)
		}
		if device, ok := r.(interface {
			Name() string
			Number() dm.Number
		}); ok {
			return o.openCarrierDevice(lv, device.Name(), device.Number())
		}
	}
	src, err := o.openVolume(ctx, ref, v, refOptions{Format: formatRaw})
	if err != nil {
		return nil, err
	}
	if src.Point, err = src.vol.point(ctx, o.Frozen, nil); err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	if o.carriers == nil {
		o.carriers = map[string]uint64{}
	}
	n, known := o.carriers[lv.ID]
	if !known {
		n = uint64(len(o.carriers))
		o.carriers[lv.ID] = n
	}
	in := &infile.Input{
		Path: "/dev/" + lv.FullName(), Real: "/dev/" + lv.FullName(),
		Info: infile.Stat{Block: true, Rdev: 1<<63 | n, Size: src.View.Size()}, // no device has such a number
	}
	return &file{Input: in, frozen: o.reads.Frozen, lv: lv, vol: src}, nil
}

// openCarrierDevice opens the device of a volume in use, by all its nodes: QEMU
// locks the one that it opened, and without udev they are no links to one.
func (o *opener) openCarrierDevice(lv *lvm.LV, path string, number dm.Number) (f *file, err error) {
	seen := map[uint64]bool{}
	for _, node := range []string{"/dev/" + lv.FullName(), "/dev/mapper/" + mapperName(lv), path} {
		n, err := openFile(node, &o.reads, nil)
		if err != nil {
			if node == path && f == nil {
				return nil, err
			}
			continue // without udev some are not there
		}
		major, minor := infile.SplitDevice(n.Info.Rdev)
		if (dm.Number{Major: major, Minor: minor}) != number || seen[n.Info.Ino] {
			n.Close()
			continue
		}
		seen[n.Info.Ino] = true
		if f != nil {
			f.nodes = append(f.nodes, n.File)
			continue
		}
		f = n
		f.lv, f.Path = lv, "/dev/"+lv.FullName()
		f.Info.Mtime = time.Time{} // its node's
	}
	if f == nil {
		return nil, fmt.Errorf("%s: is not the device of %s any more", path, lv.FullName())
	}
	return f, nil
}

// mapperName is what device-mapper calls a volume.
func mapperName(lv *lvm.LV) string {
	double := func(s string) string { return strings.ReplaceAll(s, "-", "--") }
	return double(lv.Group().Name) + "-" + double(lv.Name)
}

// appendIdentity encodes what makes a file this one: of a volume its UUIDs.
func (f *file) appendIdentity(b []byte) []byte {
	if f.lv == nil {
		return f.Info.AppendIdentity(b)
	}
	b = infile.AppendString(b, "logical volume")
	b = infile.AppendString(b, f.lv.Group().ID)
	b = infile.AppendString(b, f.lv.ID)
	return binary.BigEndian.AppendUint64(b, uint64(f.lv.CreationTime))
}

// appendVersion encodes a file and that nobody wrote to it since; ok is false
// if nothing tells. Nobody can write to a volume that LVM makes read-only. Of
// one in use the kernel's counts tell, until it is given up. One that --pv
// names, and a thin snapshot, have points.
func (f *file) appendVersion(b []byte, times *pointTimes) (_ []byte, ok bool) {
	switch {
	case !f.Info.Block:
		times.add(f.Info)
		return appendVersion(b, f.Info), !f.Info.Untold
	case f.lv == nil:
		return b, false
	}
	b = f.appendIdentity(b)
	b = binary.BigEndian.AppendUint64(b, uint64(f.Info.Size))
	switch {
	case readOnly(f.lv):
		return infile.AppendString(b, "read-only"), true
	case f.vol != nil:
		times.addPoint(f.vol.Point)
		return infile.AppendString(b, store.WithoutTimes(f.vol.Point)), f.vol.Point != ""
	}
	id, writes := record.DeviceState(f.File, f.Info)
	return infile.AppendString(infile.AppendString(b, id), record.Sectors(writes)), id != ""
}

// cannotBeWritten says that nobody needs to vouch for a volume.
func (f *file) cannotBeWritten() bool { return f.lv != nil && readOnly(f.lv) }

// openNamedVolume opens the volume that an image names as its backing or data
// file. ok is false if path, what the name leads to, is no volume. Where
// volumes of --pv are read no other is meant. What would have to be allowed is
// the directory of the group, whatever leads there.
func (o *opener) openNamedVolume(ctx context.Context, owner *file, role, name, path string, p policy) (f *file, ok bool, err error) {
	if !strings.HasPrefix(path, "/dev/") {
		return nil, false, nil
	}
	v, ok := volumeOfPath(path)
	switch {
	case len(o.PVs) > 0:
		ok = ok && owner.lv != nil
	case infile.Exists(path):
		if _, ok = hostVolumeAt(path); ok {
			v, ok = hostVolumeName(path)
		}
	}
	if !ok {
		return nil, false, nil
	}
	if group := "/dev/" + v.group; !p.permits(group + "/" + v.name) {
		return nil, true, fail.Usage("%s: %s %q is another volume: --allow %s would allow it", owner.Path, role, name, text.Quote(group))
	}
	f, err = o.openCarrier(ctx, path, v)
	var coded *fail.Error
	if err != nil && !errors.As(err, &coded) {
		err = fmt.Errorf("%w (%s)", err, otherWays(role, name))
	}
	return f, true, err
}

// deviceDir says whether a directory that is not there may be meant for
// volumes: those of a group that is not active, or of disks that --pv names.
func deviceDir(dir string) bool {
	_, err := os.Stat(dir)
	return err != nil && strings.HasPrefix(dir, "/dev/") && errors.Is(err, fs.ErrNotExist)
}
