package hostlvm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"cbt/internal/dm"
)

// What callers tell apart; errors.Is finds them.
var (
	// ErrInactive says that the volume has no device: nothing on this host uses it,
	// and it is read from the disks of its group.
	ErrInactive = errors.New("not active")
	// ErrBusy says that somebody else works with the volume now; trying later helps.
	ErrBusy = errors.New("busy")
	// ErrWritable says that the volume is active and writable, so that its content is no frozen instant.
	ErrWritable = errors.New("active and writable")
	// ErrUnhealthy says that the kernel or LVM would have to repair something first.
	ErrUnhealthy = errors.New("not healthy")
)

// DefaultLockDir is where lock files lie if Options names no other place.
const DefaultLockDir = "/run/lock/cbt"

// Options of a Host; the zero value will do.
type Options struct {
	LockDir string // instead of DefaultLockDir; made if it is missing
	// Context, if not nil, ends all reads once it is cancelled, so that what
	// walks through metadata ends soon. What was reserved is released all the same.
	Context context.Context
	// Opened, if not nil, is called for each device that is opened to be read:
	// the disks with LVM's label, and devices of volumes. An error of its ends
	// that.
	Opened func(path string, number dm.Number, size int64) error
}

// suspendWait is how long a suspended device is waited for: LVM suspends
// devices while it takes snapshots or extends them.
const suspendWait = 5 * time.Second

// Host is the LVM of this host. Its methods may be called at the same time
// from several goroutines.
type Host struct {
	ctx     context.Context // of all reads
	ctl     *dm.Control     // nil: nothing on this host uses device-mapper
	lockDir string
	opened  func(path string, number dm.Number, size int64) error

	mu      sync.Mutex
	disks   []*Disk
	devices map[string]*Direct // by UUID
	old     []*Direct          // replaced in devices
}

// Open opens the kernel's device-mapper. It fails with fs.ErrPermission
// without root's rights, and with errors.ErrUnsupported on other systems. A
// Linux host without device-mapper is one on which no volume is active.
func Open(opt Options) (*Host, error) {
	ctl, err := dm.Open()
	if err != nil && !errors.Is(err, dm.ErrNone) {
		return nil, err
	}
	h := &Host{ctx: opt.Context, ctl: ctl, lockDir: opt.LockDir, opened: opt.Opened}
	if h.opened == nil {
		h.opened = func(string, dm.Number, int64) error { return nil }
	}
	if h.ctx == nil {
		h.ctx = context.Background()
	}
	if h.lockDir == "" {
		h.lockDir = DefaultLockDir
	}
	return h, nil
}

// Close closes all that h opened; nothing that came from it works any more.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	CloseDisks(h.disks)
	for _, d := range append(slices.Collect(maps.Values(h.devices)), h.old...) {
		d.Close() // only ever read
	}
	h.disks, h.devices, h.old = nil, nil, nil
	if h.ctl == nil {
		return nil
	}
	return h.ctl.Close()
}

// layer finds a device of a volume. The error wraps ErrInactive if there is
// none or it has no table.
func (h *Host) layer(vg, lv, layer string) (dm.Device, error) {
	if h.ctl == nil {
		return dm.Device{}, ErrInactive
	}
	d, err := h.ctl.ByUUID(dm.LVMUUID(vg, lv, layer))
	switch {
	case errors.Is(err, dm.ErrNotFound), err == nil && !d.Live:
		return dm.Device{}, ErrInactive
	case err != nil:
		return dm.Device{}, err
	}
	return d, nil
}

// Volume opens a layer of a logical volume in use (one of dm's Layer
// constants, LayerNone for what users see), found by the ids of group and
// volume, with or without dashes. The error wraps ErrInactive if it has no
// device and ErrBusy if the device stays suspended. The reader is h's: a device
// is opened once, until it has another size.
func (h *Host) Volume(vg, lv, layer string) (*Direct, error) {
	d, err := h.layer(vg, lv, layer)
	if err != nil {
		return nil, err
	}
	return h.open(d)
}

func (h *Host) open(d dm.Device) (*Direct, error) {
	f, err := h.openNode(d)
	if err != nil {
		return nil, err
	}
	if err := h.opened(f.Name(), f.Number(), f.Size()); err != nil {
		f.Close()
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.devices[d.UUID]
	if was != nil && was.Size() == f.Size() && was.Number() == f.Number() {
		return was, f.Close()
	}
	if was != nil {
		h.old = append(h.old, was)
	}
	if h.devices == nil {
		h.devices = map[string]*Direct{}
	}
	h.devices[d.UUID] = f
	return f, nil
}

// openNode opens the node of a device and makes sure that it is the device's.
func (h *Host) openNode(d dm.Device) (*Direct, error) {
	for end := time.Now().Add(suspendWait); d.Suspended; time.Sleep(50 * time.Millisecond) {
		// A read would wait for as long as that lasts, and could not be
		// interrupted.
		if time.Now().After(end) {
			return nil, fmt.Errorf("%s is suspended by device-mapper: %w", d, ErrBusy)
		}
		var err error
		if d, err = h.ctl.ByUUID(d.UUID); err != nil {
			return nil, err
		}
	}
	var first error
	for _, path := range []string{fmt.Sprintf("/dev/dm-%d", d.Minor), "/dev/mapper/" + d.Name, "/dev/block/" + d.Number().String()} {
		f, err := openDirect(h.ctx, path)
		if err == nil && f.Number() != d.Number() {
			f.Close()
			err = fmt.Errorf("%s is device %v, not %v", path, f.Number(), d.Number())
		}
		if err == nil {
			return f, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, fmt.Errorf("%s: %w", d, first)
}

// Frozen returns nil if nobody can write a volume now: it has no device, or
// only read-only ones. Else the error wraps ErrWritable and names the device.
// It says nothing of an instant later.
func (h *Host) Frozen(vg, lv string) error {
	devices, err := h.layers(vg, lv)
	if err != nil {
		return err
	}
	for _, d := range devices {
		// A snapshot's exception store is written as its origin is.
		if _, _, layer, _ := dm.SplitLVMUUID(d.UUID); layer == dm.LayerCOW || !d.Live || d.ReadOnly {
			continue
		}
		use := "nothing has it open"
		if d.OpenCount > 0 {
			use = fmt.Sprintf("open %d times", d.OpenCount)
		}
		return fmt.Errorf("%s is %w (%s): deactivate it with lvchange -an, or take a snapshot of it", d, ErrWritable, use)
	}
	return nil
}

// layers lists all devices of a volume.
func (h *Host) layers(vg, lv string) ([]dm.Device, error) {
	if h.ctl == nil {
		return nil, nil
	}
	all, err := h.ctl.Devices()
	if err != nil {
		return nil, err
	}
	var its []dm.Device
	for _, d := range all {
		if g, v, _, ok := dm.SplitLVMUUID(d.UUID); ok && g == plain(vg) && v == plain(lv) {
			its = append(its, d)
		}
	}
	return its, nil
}

// plain is an id without dashes, as device-mapper and labels have it.
func plain(id string) string { return strings.ReplaceAll(id, "-", "") }
