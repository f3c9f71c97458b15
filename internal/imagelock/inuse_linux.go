package imagelock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

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
// its number; names do not matter. Mounts in other mount namespaces are found
// as far as /proc shows a process in them.
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

// use is one use of a file or device by this host's kernel.
type use struct {
	by       string // in words: "mounted at /mnt"
	readOnly bool   // it cannot write to it
	end      string // the command that ends it; empty: none is known
	instead  string // what to do otherwise, in words
}

func (h host) inUse(f *os.File) (string, error) {
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	id := identityOf(fi)
	all, err := h.allUses(id)
	if err != nil {
		return "", err
	}
	if len(all) > 0 {
		return all[0].by, nil
	}
	if !id.device {
		return "", nil
	}
	return exclusively(f)
}

// allUses are the uses of a file, or of a device and its partitions.
func (h host) allUses(id identity) ([]use, error) {
	all, err := h.uses(id)
	if err != nil || !id.device {
		return all, err
	}
	parts, err := h.partitions(id)
	if err != nil {
		return nil, err
	}
	for _, part := range parts {
		uses, err := h.uses(part.identity)
		if err != nil {
			return nil, err
		}
		for _, u := range uses {
			u.by = fmt.Sprintf("its partition %s is %s", part.name, u.by)
			all = append(all, u)
		}
	}
	return all, nil
}

// uses are those of id itself.
func (h host) uses(id identity) (all []use, err error) {
	for _, look := range []func(identity) ([]use, error){h.mounted, h.swap, h.held, h.loop} {
		uses, err := look(id)
		if err != nil {
			return nil, err
		}
		all = append(all, uses...)
	}
	return all, nil
}

// swap looks in /proc/swaps, whose first line is a heading. A kernel without
// swap has no such file.
func (h host) swap(id identity) ([]use, error) {
	text, err := os.ReadFile(filepath.Join(h.proc, "swaps"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 0 && id.named(unescape(fields[0])) {
			return []use{{by: "used as swap", end: "swapoff " + quote(unescape(fields[0]))}}, nil
		}
	}
	return nil, nil
}

// held looks for devices that are made of this one. It is used for reading
// only if all of them are read-only.
func (h host) held(id identity) ([]use, error) {
	if !id.device {
		return nil, nil
	}
	holders, err := os.ReadDir(filepath.Join(h.sys, "dev/block", id.number(), "holders"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(holders) == 0 {
		return nil, nil
	}
	u := use{readOnly: true, instead: "name what is made of it"}
	var names []string
	for _, holder := range holders {
		dir := filepath.Join(h.sys, "class/block", holder.Name())
		name := holder.Name()
		if dm := attribute(dir, "dm/name"); dm != "" {
			name += " (" + dm + ")"
		}
		if strings.HasPrefix(attribute(dir, "dm/uuid"), "LVM-") {
			u.instead = "name the volume, lvm:VG/LV without --pv"
		}
		u.readOnly = u.readOnly && attribute(dir, "ro") == "1"
		names = append(names, name)
	}
	u.by = "held by " + strings.Join(names, ", ")
	return []use{u}, nil
}

// attribute is a file of sysfs; empty if it is not there.
func attribute(dir, name string) string {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// loop looks for loop devices that this file or device is behind. The ioctl
// knows the inode; to those who may not ask it, sysfs tells the path.
func (h host) loop(id identity) (all []use, err error) {
	backing, err := filepath.Glob(filepath.Join(h.sys, "block/loop*/loop/backing_file"))
	if err != nil {
		return nil, err
	}
	for _, file := range backing {
		dir := filepath.Dir(filepath.Dir(file))
		dev := filepath.Join(h.dev, filepath.Base(dir))
		same, known := loopIs(dev, id)
		if !known {
			path, err := os.ReadFile(file)
			if err != nil {
				continue // detached meanwhile
			}
			same = id.named(strings.TrimSuffix(string(path), "\n"))
		}
		if same {
			all = append(all, use{by: "behind " + dev, readOnly: attribute(dir, "ro") == "1", end: "losetup -d " + dev})
		}
	}
	return all, nil
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
// one have a block device with O_EXCL (open(2)). Who only tries, as this does,
// has it for a moment, so a few tries are made.
func exclusively(f *os.File) (string, error) {
	for try := 1; ; try++ {
		again, err := reopen(f, os.O_RDONLY|unix.O_EXCL)
		switch {
		case err == nil:
			return "", again.Close()
		case !errors.Is(err, unix.EBUSY):
			return "", err
		case try == 5:
			return "opened exclusively by another program", nil
		}
		time.Sleep(time.Duration(try) * 10 * time.Millisecond)
	}
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
