package imagelock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// host is where the kernel says who uses what.
type host struct{ proc, sys, dev string }

var thisHost = host{"/proc", "/sys", "/dev"}

// InUse says by what, in this system, a block device or a regular file is in
// use, in words for an error message: mounted, here or through a loop device;
// swap; held by device mapper, md or the like; or opened exclusively by
// anybody. It is empty if f is free. Whole disks are in use if one of their
// partitions is. A file is recognized by its device and inode, a device by
// its number; names do not matter.
//
// InUse opens a block device a second time, exclusively, and closes it again:
// f itself must not have been opened with O_EXCL. What is free now may be
// taken at once: Exclusive keeps others from that.
// It does not see programs that just have a file or device open; for QEMU
// that is what HoldWrite is for.
func InUse(f *os.File) (by string, err error) { return thisHost.inUse(f) }

// identity is what makes a file the same file: for a device its number, for
// others where they lie.
type identity struct {
	device   bool
	dev, ino uint64 // dev is the number of the device itself if it is one
}

func identityOf(fi fs.FileInfo) identity {
	st := fi.Sys().(*syscall.Stat_t)
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return identity{device: true, dev: uint64(st.Rdev)}
	}
	return identity{dev: uint64(st.Dev), ino: uint64(st.Ino)}
}

// named reports whether path, as the kernel gave it, leads to id.
func (id identity) named(path string) bool {
	if !strings.HasPrefix(path, "/") {
		return false
	}
	fi, err := os.Stat(path)
	return err == nil && identityOf(fi) == id
}

// number is a device number as /proc and /sys write it.
func (id identity) number() string {
	return fmt.Sprintf("%d:%d", unix.Major(id.dev), unix.Minor(id.dev))
}

func (h host) inUse(f *os.File) (string, error) {
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	id := identityOf(fi)
	by, err := h.usedBy(id)
	if by != "" || err != nil || !id.device {
		return by, err
	}
	parts, err := h.partitions(id)
	if err != nil {
		return "", err
	}
	for _, part := range parts {
		by, err := h.usedBy(part.identity)
		if err != nil {
			return "", err
		}
		if by != "" {
			return fmt.Sprintf("its partition %s is %s", part.name, by), nil
		}
	}
	return exclusively(f)
}

func (h host) usedBy(id identity) (string, error) {
	for _, look := range []func(identity) (string, error){h.mounted, h.swap, h.held, h.loop} {
		if by, err := look(id); by != "" || err != nil {
			return by, err
		}
	}
	return "", nil
}

// mounted looks in mountinfo (proc(5)): "36 35 98:0 /root /mnt rw - ext3
// /dev/root rw", with any number of further fields before the hyphen. Where a
// filesystem has a made-up device number, as btrfs has, its source tells.
func (h host) mounted(id identity) (string, error) {
	text, err := os.ReadFile(filepath.Join(h.proc, "self/mountinfo"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		hyphen := slices.Index(fields, "-")
		if hyphen < 6 || len(fields) < hyphen+3 {
			continue
		}
		if id.device && fields[2] == id.number() || id.named(unescape(fields[hyphen+2])) {
			return "mounted at " + unescape(fields[4]), nil
		}
	}
	return "", nil
}

// swap looks in /proc/swaps, whose first line is a heading. A kernel without
// swap has no such file.
func (h host) swap(id identity) (string, error) {
	text, err := os.ReadFile(filepath.Join(h.proc, "swaps"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 0 && id.named(unescape(fields[0])) {
			return "used as swap", nil
		}
	}
	return "", nil
}

// unescape undoes what the kernel does to blanks and backslashes in paths.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// held looks for devices that are made of this one.
func (h host) held(id identity) (string, error) {
	if !id.device {
		return "", nil
	}
	holders, err := os.ReadDir(filepath.Join(h.sys, "dev/block", id.number(), "holders"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var names []string
	for _, holder := range holders {
		name := holder.Name()
		if dm, err := os.ReadFile(filepath.Join(h.sys, "class/block", name, "dm/name")); err == nil {
			name += " (" + strings.TrimSpace(string(dm)) + ")"
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return "", nil
	}
	return "held by " + strings.Join(names, ", "), nil
}

// loop looks for loop devices that this file or device is behind. The ioctl
// knows the inode; to those who may not ask it, sysfs tells the path.
func (h host) loop(id identity) (string, error) {
	backing, err := filepath.Glob(filepath.Join(h.sys, "block/loop*/loop/backing_file"))
	if err != nil {
		return "", err
	}
	for _, file := range backing {
		name := filepath.Base(filepath.Dir(filepath.Dir(file)))
		same, known := loopIs(filepath.Join(h.dev, name), id)
		if !known {
			path, err := os.ReadFile(file)
			if err != nil {
				continue // detached meanwhile
			}
			same = id.named(strings.TrimSuffix(string(path), "\n"))
		}
		if same {
			return "behind " + filepath.Join(h.dev, name), nil
		}
	}
	return "", nil
}

func loopIs(dev string, id identity) (same, known bool) {
	f, err := os.Open(dev)
	if err != nil {
		return false, false
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		return false, false
	}
	if id.device {
		return info.Rdevice == id.dev, true
	}
	return info.Device == id.dev && info.Inode == id.ino, true
}

type partition struct {
	name string
	identity
}

// partitions are the directories of a disk's directory that say which
// partition they are.
func (h host) partitions(id identity) ([]partition, error) {
	dir := filepath.Join(h.sys, "dev/block", id.number())
	files, err := filepath.Glob(filepath.Join(dir, "*/partition"))
	if err != nil {
		return nil, err
	}
	var all []partition
	for _, file := range files {
		part := filepath.Dir(file)
		text, err := os.ReadFile(filepath.Join(part, "dev"))
		if err != nil {
			return nil, err
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(string(text), "%d:%d", &major, &minor); err != nil {
			return nil, fmt.Errorf("%s/dev: %w", part, err)
		}
		all = append(all, partition{filepath.Base(part), identity{device: true, dev: unix.Mkdev(major, minor)}})
	}
	return all, nil
}

// exclusively tries what mount(2) and device mapper do: the kernel lets but
// one have a block device with O_EXCL (open(2)).
func exclusively(f *os.File) (string, error) {
	again, err := reopen(f, os.O_RDONLY|unix.O_EXCL)
	switch {
	case err == nil:
		return "", again.Close()
	case errors.Is(err, unix.EBUSY):
		return "opened exclusively by another program", nil
	}
	return "", err
}

// Exclusive opens a block device that is open as f once more, for reading and
// writing and with O_EXCL. While the result is open nobody mounts the device
// or one of its partitions, swaps to it or makes other devices of it. If
// somebody already does, the error is ErrBusy. f may be closed afterwards; its
// locks do not pass over.
func Exclusive(f *os.File) (*os.File, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !identityOf(fi).device {
		return nil, fmt.Errorf("%s: not a block device", f.Name())
	}
	again, err := reopen(f, os.O_RDWR|unix.O_EXCL)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%s: %w, exclusively", f.Name(), ErrBusy)
	}
	return again, err
}

// reopen opens the very file that f is, under the name of f, whatever that
// name means by now.
func reopen(f *os.File, flags int) (*os.File, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: f.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
