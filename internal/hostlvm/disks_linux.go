package hostlvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"cbt/internal/dm"
)

// sysBlock lists all block devices, partitions included.
const sysBlock = "/sys/class/block"

// Majors of drives that are not asked: trying could move a tray or a motor.
const (
	majorFloppy = 2
	majorCDROM  = 11
)

// Disks opens all block devices that hold LVM's physical volumes, in the order
// of their names. Left out are devices of device-mapper that are logical
// volumes themselves, as LVM does by default; disks with partitions; members
// of md arrays, of multipath devices and of whatever else is stacked on a
// device except logical volumes; and a copy of a physical volume another copy
// of which is in use. Devices that cannot be read are left out too: notes has a
// line for each of those and each copy. Only if no device at all could be opened
// are missing rights an error.
//
// LVM's own filters and devices file are not read.
func (h *Host) Disks(ctx context.Context) (disks []*Disk, notes []string, err error) {
	defer func() {
		if err != nil {
			CloseDisks(disks)
			disks = nil
		}
	}()
	entries, err := os.ReadDir(sysBlock)
	if err != nil {
		return nil, nil, err
	}
	var denied error
	opened := false
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return disks, nil, context.Cause(ctx)
		}
		b, err := readBlockDevice(filepath.Join(sysBlock, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone, or without a node
		} else if err != nil {
			notes = append(notes, fmt.Sprintf("left out: %v", err))
			continue
		}
		if b.passedOver() {
			continue
		}
		d, err := b.open(h.ctx)
		switch {
		case err != nil:
			if denied == nil && errors.Is(err, fs.ErrPermission) {
				denied = err
			}
			notes = append(notes, fmt.Sprintf("left out: %v", err))
		case d != nil:
			disks = append(disks, d)
		}
		opened = opened || err == nil
	}
	if denied != nil && !opened {
		return disks, nil, denied
	}
	disks, more := dropDuplicates(disks)
	return disks, append(notes, more...), nil
}

// blockDevice is what sysfs says of a device.
type blockDevice struct {
	node        string
	number      dm.Number
	sectors     uint64
	hidden      bool
	uuid        string // device-mapper's; empty for other devices
	suspended   bool
	partitioned bool
	holders     []string // UUIDs of device-mapper; of others their names
}

// readBlockDevice reads a directory of sysBlock.
func readBlockDevice(dir string) (blockDevice, error) {
	var b blockDevice
	uevent, err := os.ReadFile(filepath.Join(dir, "uevent"))
	if err != nil {
		return b, err
	}
	for line := range strings.Lines(string(uevent)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		n, _ := strconv.ParseUint(value, 10, 32) // 0 is no device's major
		switch key {
		case "MAJOR":
			b.number.Major = uint32(n)
		case "MINOR":
			b.number.Minor = uint32(n)
		case "DEVNAME":
			b.node = filepath.Join("/dev", value)
		}
	}
	b.sectors, _ = strconv.ParseUint(sysAttr(dir, "size"), 10, 64) // 0: passed over
	b.hidden = sysAttr(dir, "hidden") == "1"
	b.uuid = sysAttr(dir, "dm/uuid")
	b.suspended = sysAttr(dir, "dm/suspended") == "1"
	parts, err := filepath.Glob(filepath.Join(dir, "*", "partition"))
	if err != nil {
		return b, err
	}
	b.partitioned = len(parts) > 0
	holders, err := os.ReadDir(filepath.Join(dir, "holders"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	for _, holder := range holders {
		name := sysAttr(filepath.Join(dir, "holders", holder.Name()), "dm/uuid")
		if name == "" {
			name = holder.Name()
		}
		b.holders = append(b.holders, name)
	}
	return b, nil
}

func sysAttr(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "" // most devices have few of the attributes
	}
	return string(bytes.TrimSpace(b))
}

// passedOver says whether a device is known, without opening it, to be no
// physical volume by itself.
func (b blockDevice) passedOver() bool {
	if _, _, _, lv := dm.SplitLVMUUID(b.uuid); lv {
		return true
	}
	for _, holder := range b.holders {
		if _, _, _, lv := dm.SplitLVMUUID(holder); !lv {
			return true
		}
	}
	return b.sectors == 0 || b.hidden || b.node == "" || b.partitioned ||
		b.number.Major == majorFloppy || b.number.Major == majorCDROM
}

// open returns nil if there is no label on the device.
func (b blockDevice) open(ctx context.Context) (_ *Disk, err error) {
	if b.suspended {
		return nil, fmt.Errorf("%s: suspended by device-mapper", b.node)
	}
	d, err := openDirect(ctx, b.node)
	if errors.Is(err, unix.ENOMEDIUM) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	keep := false
	defer func() {
		if !keep {
			d.Close()
		}
	}()
	if d.Number() != b.number {
		return nil, fmt.Errorf("%s: device %v, not %v", b.node, d.Number(), b.number)
	}
	id, err := labelID(d, d.Size())
	if err != nil || id == "" {
		return nil, err
	}
	if member, err := raidMember(d, d.Size()); err != nil || member {
		return nil, err
	}
	disk := &Disk{Direct: d, PV: id}
	seen := map[string]bool{}
	for _, holder := range b.holders {
		if vg, _, _, ok := dm.SplitLVMUUID(holder); ok && !seen[vg] {
			seen[vg] = true
			disk.Groups = append(disk.Groups, vg)
		}
	}
	keep = true
	return disk, nil
}
