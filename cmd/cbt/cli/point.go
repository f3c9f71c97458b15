package cli

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"

	"cbt/qcow2"
)

// A point says which frozen instant of which image something is. Equal points
// must mean equal bytes, so a point is made of all that identifies the instant
// and cannot come back; and as deltas carry points to other hosts, it is the
// SHA-256 of that: no path, name or time is told.
//
// Each encoding starts with its name and version. Changing one ends every
// chain that was begun with it.
const (
	snapshotPointV1 = "cbt point 1: qcow2 snapshot"
	activePointV1   = "cbt point 1: qcow2 active state"
	rawPointV1      = "cbt point 1: raw file"
	ramPointV1      = "cbt point 1: RAM"
)

func point(prefix string, encoded []byte) string {
	sum := sha256.Sum256(encoded)
	return prefix + ":" + hex.EncodeToString(sum[:])
}

// rawPoint is the point of a raw file; it ends when somebody writes to it. A
// device has none: nothing tells whether it was written to.
func rawPoint(s fileStat) string {
	if s.block {
		return ""
	}
	return point(formatRaw, appendVersion(appendString(nil, rawPointV1), s))
}

// snapshotPoint is the point of an internal snapshot. The formats reuse ids,
// names and offsets, so all of the table entry goes in. A snapshot reads
// through to the backing files, which a commit changes: they go in by their
// name in the image above them, so that a directory can be moved as a whole,
// and by identity, size and mtime. Backing devices that are no volumes leave it
// without a point.
func snapshotPoint(img *image, s *qcow2.Snapshot) string {
	b := appendString(nil, snapshotPointV1)
	b = img.file.appendIdentity(b)
	b = appendString(b, s.ID)
	b = appendString(b, s.Name)
	b = appendTime(b, s.Date)
	for _, n := range []uint64{
		uint64(s.VMClock), uint64(s.L1Offset), uint64(s.L1Entries), uint64(s.DiskSize), s.VMStateSize,
	} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b, ok := appendBacking(b, img)
	if !ok {
		return ""
	}
	return point(formatQcow2, b)
}

// activePoint is the point of an active state of which the user says that
// nobody writes to it.
func activePoint(img *image) string {
	b, ok := img.file.appendVersion(appendString(nil, activePointV1))
	if !ok {
		return ""
	}
	if b, ok = appendBacking(b, img); !ok {
		return ""
	}
	return point(formatQcow2, b)
}

// appendBacking encodes the files below img and their data files; ok is false
// if one is a device, or was left out.
func appendBacking(b []byte, img *image) (_ []byte, ok bool) {
	for {
		if img.leftOut {
			return nil, false // what it reads as is not known
		}
		if img.data != nil {
			b = appendString(b, dataFile)
			if b, ok = img.data.appendVersion(b); !ok {
				return nil, false
			}
		}
		if img.backing == nil {
			return b, true
		}
		b = appendString(b, backingFile)
		b = appendString(b, img.backingName)
		b = appendString(b, img.backing.format)
		if b, ok = img.backing.file.appendVersion(b); !ok {
			return nil, false
		}
		img = img.backing
	}
}

// appendVersion encodes a file and that nobody wrote to it since.
func appendVersion(b []byte, s fileStat) []byte {
	b = s.appendIdentity(b)
	b = binary.BigEndian.AppendUint64(b, uint64(s.size))
	return appendTime(b, s.mtime)
}

// Kernels stamp files with a clock that ticks every 10 ms or faster, some file
// systems every second or two. Two writes within a tick leave one mtime, so a
// point is only taken once the tick of the last write is over.
const (
	fineTick   = 20 * time.Millisecond
	coarseTick = 2 * time.Second
)

// settle does the same for files of which more than metadata is read.
func (o *opener) settle(ctx context.Context, f *file) error {
	if o.metadataOnly {
		return nil
	}
	return f.settle(ctx)
}

// settle waits until a further write to f would be seen in its mtime.
func (f *file) settle(ctx context.Context) error {
	for !f.stat.block {
		tick := fineTick
		if f.stat.mtime.Nanosecond() == 0 {
			tick = coarseTick
		}
		age := time.Since(f.stat.mtime)
		if age > tick || age < -tick { // an mtime in the future was set by hand
			return nil
		}
		select {
		case <-time.After(tick - age + time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		now, err := statFile(f.File)
		if err != nil {
			return err
		}
		f.stat = now
	}
	return nil
}
