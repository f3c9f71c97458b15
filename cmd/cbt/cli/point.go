package cli

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"

	"cbt/internal/infile"
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

// Where a point rests on times of files, what the versions above make of it is
// only its first part: all of it but the ctimes, which anybody can put back to
// what they were. Behind a + stands a hash of that part and the ctimes. Two
// points that are equal up to the + are of one file, perhaps as it was, perhaps
// with a chmod, a rename or a new link since, or written to with its mtime put
// back: bytes have to tell. Points of earlier versions have no second part.
const pointTimesV1 = "cbt point 1: times"

// pointTimes are the ctimes that go into a point.
type pointTimes struct {
	b       []byte
	unknown bool // a system without them
}

func (t *pointTimes) add(s infile.Stat) {
	t.unknown = t.unknown || s.Ctime.IsZero()
	t.b = infile.AppendTime(t.b, s.Ctime)
}

// addPoint is for points that are made of others.
func (t *pointTimes) addPoint(p string) {
	if _, times, ok := strings.Cut(p, "+"); ok {
		t.b = infile.AppendString(t.b, times)
	}
}

// complete adds the second part to a point.
func (t *pointTimes) complete(p string) string {
	if p == "" || len(t.b) == 0 || t.unknown {
		return p
	}
	sum := sha256.Sum256(append(infile.AppendString(infile.AppendString(nil, pointTimesV1), p), t.b...))
	return p + "+" + hex.EncodeToString(sum[:])
}

func point(prefix string, encoded []byte) string {
	sum := sha256.Sum256(encoded)
	return prefix + ":" + hex.EncodeToString(sum[:])
}

// rawPoint is the point of a raw file; it ends when somebody writes to it. A
// device has none: nothing tells whether it was written to.
func rawPoint(s infile.Stat) string {
	if s.Block || s.Untold {
		return ""
	}
	var times pointTimes
	times.add(s)
	return times.complete(point(formatRaw, appendVersion(infile.AppendString(nil, rawPointV1), s)))
}

// snapshotPoint is the point of an internal snapshot. The formats reuse ids,
// names and offsets, so all of the table entry goes in. A snapshot reads
// through to the backing files, which a commit changes: they go in by their
// name in the image above them, so that a directory can be moved as a whole,
// and by identity, size and times. Backing devices that are no volumes leave it
// without a point.
func snapshotPoint(img *image, s *qcow2.Snapshot) string {
	b := infile.AppendString(nil, snapshotPointV1)
	b = img.file.appendIdentity(b)
	b = infile.AppendString(b, s.ID)
	b = infile.AppendString(b, s.Name)
	b = infile.AppendTime(b, s.Date)
	for _, n := range []uint64{
		uint64(s.VMClock), uint64(s.L1Offset), uint64(s.L1Entries), uint64(s.DiskSize), s.VMStateSize,
	} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	var times pointTimes
	b, ok := appendBacking(b, img, &times)
	if !ok {
		return ""
	}
	return times.complete(point(formatQcow2, b))
}

// activePoint is the point of an active state of which the user says that
// nobody writes to it.
func activePoint(img *image) string {
	var times pointTimes
	b, ok := img.file.appendVersion(infile.AppendString(nil, activePointV1), &times)
	if !ok {
		return ""
	}
	if b, ok = appendBacking(b, img, &times); !ok {
		return ""
	}
	return times.complete(point(formatQcow2, b))
}

// appendBacking encodes the files below img and their data files; ok is false
// if one is a device, or was left out.
func appendBacking(b []byte, img *image, times *pointTimes) (_ []byte, ok bool) {
	for {
		if img.leftOut {
			return nil, false // what it reads as is not known
		}
		if img.data != nil {
			b = infile.AppendString(b, dataFile)
			if b, ok = img.data.appendVersion(b, times); !ok {
				return nil, false
			}
		}
		if img.backing == nil {
			return b, true
		}
		b = infile.AppendString(b, backingFile)
		b = infile.AppendString(b, img.backingName)
		b = infile.AppendString(b, img.backing.format)
		if b, ok = img.backing.file.appendVersion(b, times); !ok {
			return nil, false
		}
		img = img.backing
	}
}

// appendVersion encodes a file and that nobody wrote to it since, as far as its
// mtime tells.
func appendVersion(b []byte, s infile.Stat) []byte {
	b = s.AppendIdentity(b)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Size))
	return infile.AppendTime(b, s.Mtime)
}
