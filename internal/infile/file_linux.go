package infile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const procSelfFD = "/proc/self/fd/"

// Open opens path for reading. An O_PATH descriptor, which opens nothing
// behind the name, is looked at first: its kind and its real path, of which
// judge (nil: anything goes) has the last word. Only then is the very same
// file opened through that descriptor, so that nobody can put another one, a
// pipe or a tape in between.
func Open(path string, judge func(real string) error) (*Input, error) {
	look, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(look)
	st, mode, err := statFD(look)
	if err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if err := KindError(path, mode); err != nil {
		return nil, err
	}
	link := procSelfFD + strconv.Itoa(look)
	real, err := os.Readlink(link)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot tell where it is without /proc: %w", path, err)
	}
	if judge != nil {
		if err := judge(real); err != nil {
			return nil, err
		}
	}
	// O_NOATIME is for owners and root; others cannot help touching the time.
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Open(link, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Open(link, flags, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := &Input{File: os.NewFile(uintptr(fd), path), Path: path, Real: real, Info: st}
	if st.Block {
		if f.Info.Size, err = f.Seek(0, io.SeekEnd); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// StatOf is what f is now.
func StatOf(f *os.File) (Stat, error) {
	st, _, err := statFD(int(f.Fd()))
	if err == nil && st.Block {
		st.Size, err = f.Seek(0, io.SeekEnd)
	}
	return st, err
}

// TimesOf is what StatOf says of the times, by one system call.
func TimesOf(f *os.File) (Stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Stamp{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return Stamp{time.Unix(st.Mtim.Unix()), time.Unix(st.Ctim.Unix()), st.Size}, nil
}

func statFD(fd int) (Stat, os.FileMode, error) {
	var x unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &x); err != nil {
		return Stat{}, 0, err
	}
	st := Stat{
		Dev: unix.Mkdev(x.Dev_major, x.Dev_minor), Ino: x.Ino,
		Size: int64(x.Size), Stored: int64(x.Blocks) * 512,
		Mtime: time.Unix(x.Mtime.Sec, int64(x.Mtime.Nsec)).UTC(),
		Ctime: time.Unix(x.Ctime.Sec, int64(x.Ctime.Nsec)).UTC(),
	}
	if x.Mask&unix.STATX_BTIME != 0 {
		st.Btime = time.Unix(x.Btime.Sec, int64(x.Btime.Nsec)).UTC()
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err == nil {
		st.Fsid = uint64(uint32(fs.Fsid.Val[0]))<<32 | uint64(uint32(fs.Fsid.Val[1]))
	}
	switch uint32(fs.Type) {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.HUGETLBFS_MAGIC:
		st.InMemory = true
	}
	var mode os.FileMode
	switch x.Mode & syscall.S_IFMT {
	case syscall.S_IFBLK:
		mode = os.ModeDevice
		st.Block, st.Rdev = true, unix.Mkdev(x.Rdev_major, x.Rdev_minor)
	case syscall.S_IFCHR:
		mode = os.ModeDevice | os.ModeCharDevice
	case syscall.S_IFDIR:
		mode = os.ModeDir
	case syscall.S_IFIFO:
		mode = os.ModeNamedPipe
	case syscall.S_IFSOCK:
		mode = os.ModeSocket
	case syscall.S_IFREG:
	default:
		mode = os.ModeIrregular
	}
	return st, mode, nil
}
