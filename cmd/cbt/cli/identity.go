package cli

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"

	"cbt/lvm"
)

// fileStat is what fstat says of an open file.
type fileStat struct {
	dev, ino uint64
	fsid     uint64 // of the file system; 0 if it has none
	rdev     uint64 // the device itself; block devices only
	block    bool
	size     int64 // bytes; block devices too
	stored   int64 // bytes that the file takes on its file system
	inMemory bool  // its file system is: what is written through a mapping changes its times once
	untold   bool  // so nothing tells whether it was written to
	mtime    time.Time
	ctime    time.Time // of the last change of bytes, mode, owner or names; zero where the system does not tell
	btime    time.Time // when the file was made; zero if the file system has no such thing
}

// fileID tells open files apart, while they are open.
type fileID struct {
	dev, ino uint64
	block    bool
}

func (s fileStat) id() fileID {
	if s.block { // one device may have many nodes
		return fileID{dev: s.rdev, block: true}
	}
	return fileID{dev: s.dev, ino: s.ino}
}

// unchanged says that nobody wrote to the file between two looks at it, as far
// as times tell: the mtime, which anybody may put back, and the ctime, which
// nobody can. A device has neither.
func (s fileStat) unchanged(t fileStat) bool {
	return s.unwritten(t) && (s.block || s.ctime.Equal(t.ctime))
}

// instantByMtime is for tests, which have to make files of the past.
var instantByMtime bool

// lastChange is the time since which a file has had its bytes: its ctime, which
// nobody can put back, or forward, as cp -p and touch do the mtime. Where there is
// none it is the mtime. It is zero for a device: the times of its node do not change
// with what is written.
func (s fileStat) lastChange() time.Time {
	switch {
	case s.block:
		return time.Time{}
	case s.ctime.IsZero() || instantByMtime:
		return s.mtime
	}
	return s.ctime
}

// unwritten is unchanged but for the ctime.
func (s fileStat) unwritten(t fileStat) bool {
	return s.id() == t.id() && s.size == t.size && (s.block || s.mtime.Equal(t.mtime))
}

// appendIdentity encodes what makes this file this file, for points: the file
// system, the inode and the birth time.
//
// All three stay when the file is renamed, and the birth time keeps a later
// file that was given the same inode from passing for this one. The file
// system is told by its own ID (statfs), which most of them derive from their
// UUID, because a device number may be another one after a reboot; it is not
// left out, because inode and birth time can be the same on two file systems.
// Where there is no ID or no birth time the device number has to do.
func (s fileStat) appendIdentity(b []byte) []byte {
	if s.fsid == 0 || s.btime.IsZero() {
		b = appendString(b, "dev")
		b = binary.BigEndian.AppendUint64(b, s.dev)
	}
	b = appendString(b, "fsid+ino+btime")
	b = binary.BigEndian.AppendUint64(b, s.fsid)
	b = binary.BigEndian.AppendUint64(b, s.ino)
	return appendTime(b, s.btime)
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
	return append(b, s...)
}

func appendTime(b []byte, t time.Time) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(t.Unix()))
	return binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
}

// fileSourceV1 begins what the identity of a file as a source is made of.
const fileSourceV1 = "cbt source 1: file"

// identity says which disk a source is of, whatever its state and its name:
// deltas carry it to other hosts, so no path is told. It is "" where nothing tells
// it. A file that was copied is another one.
func (s *source) identity() string {
	switch {
	case len(s.layers) > 0:
		l := s.layers[len(s.layers)-1]
		return l.Delta.Header.Streams[l.Stream].Source
	case s.vol != nil:
		return volumeIdentity(s.vol.LV(), s.Point != "")
	case s.img != nil && s.img.file.lv != nil: // an image in a volume, which has its own snapshots
		return volumeIdentity(s.img.file.lv, false)
	case s.img != nil && !s.img.file.stat.block:
		sum := sha256.Sum256(s.img.file.stat.appendIdentity(appendString(nil, fileSourceV1)))
		return "file:" + hex.EncodeToString(sum[:16])
	}
	return ""
}

// volumeIdentity is the UUID of a volume; of a snapshot, that of what it is one
// of. A snapshot that was written to since is a machine of its own, so it counts
// as one only if it is frozen.
func volumeIdentity(lv *lvm.LV, frozen bool) string {
	if origin := lv.Origin(); origin != "" && frozen {
		for _, other := range lv.Group().LVs {
			if other.Name == origin {
				lv = other
				break
			}
		}
	}
	if lv.ID == "" || len(lv.ID) > 100 || strings.ContainsFunc(lv.ID, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return formatVolume + ":" + lv.ID
}

// machineName is what the delta that a source is read from says of its machine.
func (s *source) machineName() string {
	if s == nil || len(s.layers) == 0 {
		return ""
	}
	return s.layers[len(s.layers)-1].Delta.Header.Machine
}
