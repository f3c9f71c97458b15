package cli

import (
	"encoding/binary"
	"time"
)

// fileStat is what fstat says of an open file.
type fileStat struct {
	dev, ino uint64
	rdev     uint64 // the device itself; block devices only
	block    bool
	size     int64 // bytes; block devices too
	stored   int64 // bytes that the file takes on its file system
	mtime    time.Time
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

// unchanged says that nobody wrote to the file between two looks at it. A
// device has no time of change.
func (s fileStat) unchanged(t fileStat) bool {
	return s.id() == t.id() && s.size == t.size && (s.block || s.mtime.Equal(t.mtime))
}

// appendIdentity encodes what makes this file this file, for points.
//
// It is inode and birth time: both stay when the file is renamed, and the
// birth time, in nanoseconds, keeps a later file that was given the same inode
// from passing for this one. The device number is left out then, because it
// may be another one after a reboot. Only where the file system knows no birth
// time (some network and FUSE file systems), inode and device number have to
// do.
func (s fileStat) appendIdentity(b []byte) []byte {
	if s.btime.IsZero() {
		b = appendString(b, "dev+ino")
		b = binary.BigEndian.AppendUint64(b, s.dev)
		return binary.BigEndian.AppendUint64(b, s.ino)
	}
	b = appendString(b, "ino+btime")
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
