package imagelock

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Written says by what, in this system, a source may be written to while it is
// read, in words for an error message, and what to do about it, which may be
// empty. Both are empty if nothing is known to. It sees what InUse sees, and allows what only reads: a filesystem that is
// read-only, loop devices and other devices that are. Besides it looks at what
// a source is a part of, or made of: the disk of a partition, the file behind a
// loop device and whoever else has that, a machine included.
//
// Like InUse it opens a device a second time for a moment.
func Written(f *os.File) (by, advice string, err error) { return thisHost.written(f) }

func (h host) written(f *os.File) (by, advice string, err error) {
	fi, err := f.Stat()
	if err != nil {
		return "", "", err
	}
	id := identityOf(fi)
	all, err := h.allUses(id)
	if err != nil {
		return "", "", err
	}
	if id.device {
		more, err := h.around(id)
		if err != nil {
			return "", "", err
		}
		// That a device is mounted read-only explains why nobody else can have it exclusively.
		if len(all) == 0 {
			if by, err := exclusively(f); err != nil {
				return "", "", err
			} else if by != "" {
				all = append(all, use{by: by + ", or mounted in a mount namespace that cannot be seen"})
			}
		}
		all = append(all, more...)
	}
	for _, u := range all {
		if !u.readOnly {
			return u.by, h.advice(u), nil
		}
	}
	return "", "", nil
}

// around are the uses of what a device is a part or an image of.
func (h host) around(id identity) (all []use, err error) {
	if disk, ok := h.wholeDisk(id); ok {
		uses, err := h.uses(disk)
		if err != nil {
			return nil, err
		}
		more, err := h.behind(disk)
		if err != nil {
			return nil, err
		}
		for _, u := range append(uses, more...) {
			u.by = "its disk is " + strings.TrimPrefix(u.by, "its ")
			all = append(all, u)
		}
	}
	more, err := h.behind(id)
	return append(all, more...), err
}

// wholeDisk is the disk that a partition is of.
func (h host) wholeDisk(id identity) (identity, bool) {
	dir, err := filepath.EvalSymlinks(filepath.Join(h.sys, "dev/block", id.number()))
	if err != nil || attribute(dir, "partition") == "" {
		return identity{}, false
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(attribute(filepath.Dir(dir), "dev"), "%d:%d", &major, &minor); err != nil {
		return identity{}, false
	}
	return identity{device: true, dev: unix.Mkdev(major, minor)}, true
}

// behind are the other uses of the file or device behind a loop device.
func (h host) behind(id identity) (all []use, err error) {
	dir := filepath.Join(h.sys, "dev/block", id.number())
	path := attribute(dir, "loop/backing_file")
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil // deleted, or in another mount namespace
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	file := identityOf(fi)
	dev := h.loopNode(id)
	if same, known := loopIs(dev, file); known && !same {
		return nil, nil // another file has that name now
	}
	uses, err := h.allUses(file)
	if err != nil {
		return nil, err
	}
	for _, u := range uses {
		if u.by != "behind "+dev {
			u.by = fmt.Sprintf("an image of %s, which is %s", path, u.by)
			all = append(all, u)
		}
	}
	if !file.device {
		// Where nothing can be locked, QEMU's machines tell nobody either.
		if writes, err := Writer(f); err == nil && writes {
			all = append(all, use{by: fmt.Sprintf("an image of %s, which a running machine or another program writes to", path)})
		}
	}
	return all, nil
}

// loopNode is the node of a loop device.
func (h host) loopNode(id identity) string {
	dir, err := filepath.EvalSymlinks(filepath.Join(h.sys, "dev/block", id.number()))
	if err != nil {
		return ""
	}
	return filepath.Join(h.dev, filepath.Base(dir))
}

// advice is what to do about a use.
func (h host) advice(u use) string {
	if end := h.endOf(u); end != "" {
		return "`" + end + "` ends that"
	}
	return u.instead
}

// endOf is what ends a use: a loop device that is in use itself has to be
// given up first, and some go with their mount.
func (h host) endOf(u use) string {
	dev, ok := strings.CutPrefix(u.end, "losetup -d ")
	if !ok {
		return u.end
	}
	dir := filepath.Join(h.sys, "block", filepath.Base(dev))
	var major, minor uint32
	if _, err := fmt.Sscanf(attribute(dir, "dev"), "%d:%d", &major, &minor); err != nil {
		return u.end
	}
	uses, err := h.allUses(identity{device: true, dev: unix.Mkdev(major, minor)})
	if err != nil || len(uses) == 0 || uses[0].end == "" {
		return u.end
	}
	if first := h.endOf(uses[0]); attribute(dir, "loop/autoclear") == "1" {
		return first
	} else {
		return first + "; " + u.end
	}
}
