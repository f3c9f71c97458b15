package fuse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"cbt/internal/ordered"
	"cbt/internal/tree"
	"cbt/sparse"
)

// fs answers the kernel. What it shows does not change while it is mounted, so
// the kernel may keep names, attributes and bytes for as long as it likes.
type fs struct {
	gofuse.RawFileSystem // answers ENOSYS, which the kernel does not ask again
	ctx                  context.Context
	tree                 *tree.Tree
	opt                  Options
	nodes                *nodes
	handles              handles
	uid, gid             uint32
}

const (
	keepFor   = time.Hour
	blockSize = 4096
	// pidAttr is the extended attribute of the root that tells who serves.
	pidAttr = "user.cbt.pid"
)

type openFile struct {
	*tree.Handle
	ino uint64
}

type openDir struct {
	node    *node
	listing *tree.Listing
}

// do runs f, whose ctx is done when the kernel loses interest: opening a large
// state may take long.
func do[T any](s *fs, cancel <-chan struct{}, f func(ctx context.Context) (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	ctx, stop := context.WithCancel(s.ctx)
	go func() {
		var r result
		defer func() { done <- r }()
		defer ordered.Caught(&r.err)
		r.v, r.err = f(ctx)
	}()
	select {
	case r := <-done:
		stop()
		return r.v, r.err
	case <-cancel:
		stop()
		r := <-done
		return r.v, r.err
	}
}

// fail is the error that a caller sees; what it is really goes to the log.
func (s *fs) fail(what string, err error) gofuse.Status {
	var errno syscall.Errno
	switch {
	case errors.Is(err, context.Canceled):
		return gofuse.EINTR
	case errors.As(err, &errno) && (errno == syscall.ENOSPC || errno == syscall.EDQUOT || errno == syscall.EMFILE || errno == syscall.ENFILE):
		s.opt.Log("%s: %v", what, err)
		return gofuse.Status(errno)
	}
	s.opt.Log("%s: %v", what, err)
	return gofuse.EIO
}

func (s *fs) String() string { return Name }

func (s *fs) attr(n *node, out *gofuse.Attr) {
	out.Ino, out.Blksize, out.Nlink = n.ino, blockSize, 1
	out.Owner = gofuse.Owner{Uid: s.uid, Gid: s.gid}
	var t time.Time
	if n.dir != nil {
		out.Mode, out.Nlink, t = syscall.S_IFDIR|0o500, 2, n.dir.Time
	} else {
		out.Mode, t = syscall.S_IFREG|0o400, n.file.Time
		if n.file.Writable {
			out.Mode |= 0o200
		}
		out.Size = uint64(n.file.Size)
		// No blocks at all would mean to some programs that there is nothing to read.
		out.Blocks = uint64(min(max(n.file.Stored, blockSize), n.file.Size+511) / 512)
	}
	if s.opt.AllowOther {
		out.Mode |= out.Mode >> 3 & 0o055
		out.Mode |= out.Mode >> 3 & 0o005
	}
	if t.IsZero() || t.Unix() < 0 {
		t = time.Unix(0, 0)
	}
	out.SetTimes(&t, &t, &t)
}

func (s *fs) entry(n *node, out *gofuse.EntryOut) {
	out.NodeId, out.Generation = n.id, 1
	out.SetEntryTimeout(keepFor)
	out.SetAttrTimeout(keepFor)
	s.attr(n, &out.Attr)
}

func (s *fs) list(cancel <-chan struct{}, n *node) (*tree.Listing, gofuse.Status) {
	if n == nil {
		return nil, gofuse.Status(syscall.ESTALE)
	}
	if n.dir == nil {
		return nil, gofuse.ENOTDIR
	}
	l, err := do(s, cancel, func(ctx context.Context) (*tree.Listing, error) { return s.tree.List(ctx, n.dir) })
	if err != nil {
		return nil, s.fail(n.place.name, err)
	}
	return l, gofuse.OK
}

func (s *fs) Lookup(cancel <-chan struct{}, header *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	parent := s.nodes.get(header.NodeId)
	l, code := s.list(cancel, parent)
	if !code.Ok() {
		return code
	}
	e := l.Find(name)
	if e == nil {
		out.SetEntryTimeout(keepFor) // node 0: there is none
		return gofuse.OK
	}
	s.entry(s.nodes.look(parent, e), out)
	return gofuse.OK
}

func (s *fs) Forget(id, n uint64) { s.nodes.forget(id, n) }

func (s *fs) GetAttr(_ <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	n := s.nodes.get(in.NodeId)
	if n == nil {
		return gofuse.Status(syscall.ESTALE)
	}
	out.SetTimeout(keepFor)
	s.attr(n, &out.Attr)
	return gofuse.OK
}

func (s *fs) OpenDir(cancel <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	n := s.nodes.get(in.NodeId)
	l, code := s.list(cancel, n)
	if !code.Ok() {
		return code
	}
	out.Fh = s.handles.add(&openDir{n, l})
	out.OpenFlags = gofuse.FOPEN_CACHE_DIR | gofuse.FOPEN_KEEP_CACHE
	return gofuse.OK
}

func (s *fs) ReleaseDir(in *gofuse.ReleaseIn) { s.handles.remove(in.Fh) }

// eachEntry calls add with the entries from an offset on, the first two being "." and
// "..", until it returns false.
func (d *openDir) eachEntry(off uint64, add func(e *tree.Entry, de gofuse.DirEntry) bool) {
	for i := off; i < 2; i++ {
		if !add(nil, gofuse.DirEntry{Name: ".."[:i+1], Mode: syscall.S_IFDIR, Ino: d.node.ino, Off: i + 1}) {
			return
		}
	}
	for i := max(off, 2) - 2; i < uint64(len(d.listing.Entries)); i++ {
		e := &d.listing.Entries[i]
		de := gofuse.DirEntry{Name: e.Name, Mode: syscall.S_IFREG, Ino: inode(d.node.ino, e.Name), Off: i + 3}
		if e.Dir != nil {
			de.Mode = syscall.S_IFDIR
		}
		if !add(e, de) {
			return
		}
	}
}

func (s *fs) ReadDir(_ <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	d, ok := s.handles.get(in.Fh).(*openDir)
	if !ok {
		return gofuse.EBADF
	}
	d.eachEntry(in.Offset, func(_ *tree.Entry, de gofuse.DirEntry) bool { return out.AddDirEntry(de) })
	return gofuse.OK
}

func (s *fs) ReadDirPlus(_ <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	d, ok := s.handles.get(in.Fh).(*openDir)
	if !ok {
		return gofuse.EBADF
	}
	d.eachEntry(in.Offset, func(e *tree.Entry, de gofuse.DirEntry) bool {
		o := out.AddDirLookupEntry(de)
		if o != nil && e != nil { // the kernel looks nothing up for "." and ".."
			s.entry(s.nodes.look(d.node, e), o)
		}
		return o != nil
	})
	return gofuse.OK
}

func (s *fs) Open(cancel <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	n := s.nodes.get(in.NodeId)
	switch {
	case n == nil:
		return gofuse.Status(syscall.ESTALE)
	case n.file == nil:
		return gofuse.Status(syscall.EISDIR)
	case !n.file.Writable && in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY:
		return gofuse.EROFS
	}
	h, err := do(s, cancel, n.file.Open)
	if err != nil {
		return s.fail(n.place.name, err)
	}
	if h.Size() != n.file.Size {
		h.Close()
		return s.fail(n.place.name, fmt.Errorf("has %d bytes now, had %d", h.Size(), n.file.Size))
	}
	out.Fh = s.handles.add(&openFile{h, n.ino})
	out.OpenFlags = gofuse.FOPEN_KEEP_CACHE | gofuse.FOPEN_NOFLUSH
	if h.Writer != nil {
		// A disk and its partitions show the same bytes: the kernel keeps none.
		out.OpenFlags = gofuse.FOPEN_DIRECT_IO | gofuse.FOPEN_PARALLEL_DIRECT_WRITES
	}
	return gofuse.OK
}

func (s *fs) Release(_ <-chan struct{}, in *gofuse.ReleaseIn) {
	if f, ok := s.handles.remove(in.Fh).(*openFile); ok {
		f.Close()
	}
}

func (s *fs) Read(_ <-chan struct{}, in *gofuse.ReadIn, buf []byte) (gofuse.ReadResult, gofuse.Status) {
	f, ok := s.handles.get(in.Fh).(*openFile)
	if !ok {
		return nil, gofuse.EBADF
	}
	if in.Offset >= uint64(f.Size()) {
		return gofuse.ReadResultData(nil), gofuse.OK
	}
	n, err := f.ReadAt(buf[:min(len(buf), int(in.Size))], int64(in.Offset))
	if err != nil && err != io.EOF {
		return nil, s.fail(fmt.Sprintf("reading %d bytes at %d", in.Size, in.Offset), err)
	}
	return gofuse.ReadResultData(buf[:n]), gofuse.OK
}

// What LSEEK asks for (lseek(2)).
const (
	seekData = 3
	seekHole = 4
)

func (s *fs) Lseek(cancel <-chan struct{}, in *gofuse.LseekIn, out *gofuse.LseekOut) gofuse.Status {
	f, ok := s.handles.get(in.Fh).(*openFile)
	switch {
	case !ok:
		return gofuse.EBADF
	case in.Whence != seekData && in.Whence != seekHole:
		return gofuse.EINVAL
	case in.Offset >= uint64(f.Size()):
		return gofuse.Status(syscall.ENXIO)
	}
	off, found := int64(in.Offset), false
	for e, err := range f.Extents(off, f.Size()-off) {
		if err != nil {
			return s.fail("looking for holes", err)
		}
		select {
		case <-cancel:
			return gofuse.EINTR
		default:
		}
		if found = e.Kind.ReadsZero() == (in.Whence == seekHole); found {
			off = e.Off
			break
		}
	}
	switch {
	case !found && in.Whence == seekData:
		return gofuse.Status(syscall.ENXIO)
	case !found:
		off = f.Size() // there is a hole behind every file
	}
	out.Offset = uint64(off)
	return gofuse.OK
}

func (s *fs) StatFs(_ <-chan struct{}, _ *gofuse.InHeader, out *gofuse.StatfsOut) gofuse.Status {
	out.Bsize, out.Frsize, out.NameLen = blockSize, blockSize, tree.MaxName
	return gofuse.OK
}

func (s *fs) GetXAttr(_ <-chan struct{}, header *gofuse.InHeader, attr string, dest []byte) (uint32, gofuse.Status) {
	if header.NodeId != rootID || attr != pidAttr {
		return 0, gofuse.ENOATTR
	}
	pid := strconv.Itoa(os.Getpid())
	if len(dest) < len(pid) {
		return uint32(len(pid)), gofuse.ERANGE
	}
	return uint32(copy(dest, pid)), gofuse.OK
}

func (s *fs) ListXAttr(<-chan struct{}, *gofuse.InHeader, []byte) (uint32, gofuse.Status) {
	return 0, gofuse.OK
}

var _ sparse.View = (*openFile)(nil)
