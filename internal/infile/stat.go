package infile

import (
	"encoding/binary"
	"time"
)

// Stat is what fstat says of an open file.
type Stat struct {
	Dev, Ino uint64
	Fsid     uint64 // of the file system; 0 if it has none
	Rdev     uint64 // the device itself; block devices only
	Block    bool
	Size     int64 // bytes; block devices too
	Stored   int64 // bytes that the file takes on its file system
	InMemory bool  // its file system is: what is written through a mapping changes its times once
	Untold   bool  // so nothing tells whether it was written to
	Mtime    time.Time
	Ctime    time.Time // of the last change of bytes, mode, owner or names; zero where the system does not tell
	Btime    time.Time // when the file was made; zero if the file system has no such thing
}

// ID tells open files apart, while they are open.
type ID struct {
	dev, ino uint64
	block    bool
}

// Identity returns what tells the open file apart from others.
func (s Stat) Identity() ID {
	if s.Block { // one device may have many nodes
		return ID{dev: s.Rdev, block: true}
	}
	return ID{dev: s.Dev, ino: s.Ino}
}

// Unchanged says that nobody wrote to the file between two looks at it, as far
// as times tell: the mtime, which anybody may put back, and the ctime, which
// nobody can. A device has neither.
func (s Stat) Unchanged(t Stat) bool {
	return s.Unwritten(t) && (s.Block || s.Ctime.Equal(t.Ctime))
}

// InstantByMtime is for tests, which have to make files of the past.
var InstantByMtime bool

// LastChange is the time since which a file has had its bytes: its ctime, which
// nobody can put back, or forward, as cp -p and touch do the mtime. Where there is
// none it is the mtime. It is zero for a device: the times of its node do not change
// with what is written.
func (s Stat) LastChange() time.Time {
	switch {
	case s.Block:
		return time.Time{}
	case s.Ctime.IsZero() || InstantByMtime:
		return s.Mtime
	}
	return s.Ctime
}

// Unwritten is unchanged but for the ctime.
func (s Stat) Unwritten(t Stat) bool {
	return s.Identity() == t.Identity() && s.Size == t.Size && (s.Block || s.Mtime.Equal(t.Mtime))
}

// AppendIdentity encodes what makes this file this file, for points: the file
// system, the inode and the birth time.
//
// All three stay when the file is renamed, and the birth time keeps a later
// file that was given the same inode from passing for this one. The file
// system is told by its own ID (statfs), which most of them derive from their
// UUID, because a device number may be another one after a reboot; it is not
// left out, because inode and birth time can be the same on two file systems.
// Where there is no ID or no birth time the device number has to do.
func (s Stat) AppendIdentity(b []byte) []byte {
	if s.Fsid == 0 || s.Btime.IsZero() {
		b = AppendString(b, "dev")
		b = binary.BigEndian.AppendUint64(b, s.Dev)
	}
	b = AppendString(b, "fsid+ino+btime")
	b = binary.BigEndian.AppendUint64(b, s.Fsid)
	b = binary.BigEndian.AppendUint64(b, s.Ino)
	return AppendTime(b, s.Btime)
}

// AppendString appends s with its length before it, as points and identities have it.
func AppendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
	return append(b, s...)
}

// AppendTime appends the seconds and nanoseconds of t, as points and identities have it.
func AppendTime(b []byte, t time.Time) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(t.Unix()))
	return binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
}
