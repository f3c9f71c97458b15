package fuse

import (
	"fmt"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

// writer is an open file that can be written to.
func (s *fs) writer(fh uint64) (*openFile, gofuse.Status) {
	f, ok := s.handles.get(fh).(*openFile)
	switch {
	case !ok:
		return nil, gofuse.EBADF
	case f.Writer == nil:
		return nil, gofuse.EROFS
	}
	return f, gofuse.OK
}

// Write writes inside the file: like a disk, it does not grow.
func (s *fs) Write(_ <-chan struct{}, in *gofuse.WriteIn, data []byte) (uint32, gofuse.Status) {
	f, code := s.writer(in.Fh)
	if !code.Ok() {
		return 0, code
	}
	if in.Offset >= uint64(f.Size()) {
		return 0, gofuse.Status(syscall.ENOSPC)
	}
	data = data[:min(int64(len(data)), f.Size()-int64(in.Offset))]
	n, err := f.Writer.WriteAt(data, int64(in.Offset))
	if err != nil {
		return uint32(n), s.fail(fmt.Sprintf("writing %d bytes at %d", len(data), in.Offset), err)
	}
	return uint32(n), gofuse.OK
}

func (s *fs) Fsync(_ <-chan struct{}, in *gofuse.FsyncIn) gofuse.Status {
	f, ok := s.handles.get(in.Fh).(*openFile)
	if !ok || f.Writer == nil {
		return gofuse.OK
	}
	if err := f.Writer.Sync(); err != nil {
		return s.fail("syncing", err)
	}
	return gofuse.OK
}

// Modes of fallocate(2).
const (
	keepSize  = 0x1
	punchHole = 0x2
	zeroRange = 0x10
)

// Fallocate zeroes, which is what a loop device makes of a discard.
func (s *fs) Fallocate(_ <-chan struct{}, in *gofuse.FallocateIn) gofuse.Status {
	f, code := s.writer(in.Fh)
	switch {
	case !code.Ok():
		return code
	case in.Mode&^keepSize != punchHole && in.Mode&^keepSize != zeroRange:
		return gofuse.Status(syscall.EOPNOTSUPP)
	case in.Offset >= uint64(f.Size()) || in.Length == 0:
		return gofuse.OK
	}
	n := min(in.Length, uint64(f.Size())-in.Offset)
	if err := f.Writer.Zero(int64(in.Offset), int64(n)); err != nil {
		return s.fail(fmt.Sprintf("zeroing %d bytes at %d", n, in.Offset), err)
	}
	return gofuse.OK
}

// SetAttr takes times, as programs set them that copy, without keeping them,
// and nothing else that would change anything.
func (s *fs) SetAttr(_ <-chan struct{}, in *gofuse.SetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	n := s.nodes.get(in.NodeId)
	switch {
	case n == nil:
		return gofuse.Status(syscall.ESTALE)
	case n.file == nil || !n.file.Writable:
		return gofuse.EROFS
	case in.Valid&gofuse.FATTR_SIZE != 0 && in.Size != uint64(n.file.Size):
		return gofuse.EPERM
	case in.Valid&(gofuse.FATTR_MODE|gofuse.FATTR_UID|gofuse.FATTR_GID) != 0:
		return gofuse.EPERM
	}
	out.SetTimeout(keepFor)
	s.attr(n, &out.Attr)
	return gofuse.OK
}
