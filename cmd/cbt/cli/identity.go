package cli

import (
	"encoding/binary"
	"time"
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
