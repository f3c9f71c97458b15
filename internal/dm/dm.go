// Package dm asks the Linux kernel's device-mapper, by ioctl on
// /dev/mapper/control, which devices there are, what they are made of and how
// they do, and sends messages to their targets. It creates, loads, suspends
// and removes nothing.
//
// On other systems the package builds, and Open fails with
// errors.ErrUnsupported.
package dm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// controlNode is the device that takes the ioctls.
const controlNode = "/dev/mapper/control"

// Errors that callers tell apart; what the kernel refused is an *Error.
var (
	// ErrNotFound says that no device has this name or UUID.
	ErrNotFound = errors.New("no such device-mapper device")
	// ErrNone says that this kernel has no device-mapper, or that nothing has used it yet.
	ErrNone = errors.New("device-mapper is not in use on this host")
)

// Error is an ioctl that the kernel refused. It unwraps to the errno.
type Error struct {
	Op     string // "status", "message reserve_metadata_snap"
	Device string // name or UUID; empty if the ioctl was about none
	Err    error
}

func (e *Error) Error() string {
	if e.Device == "" {
		return fmt.Sprintf("device-mapper: %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("device-mapper: %s: %s: %v", e.Device, e.Op, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Device is what the kernel says of a device (struct dm_ioctl). The zero
// Device is none.
type Device struct {
	Name         string
	UUID         string // LVM's begin with "LVM-"; may be empty
	Major, Minor uint32
	OpenCount    int  // file systems, processes and devices that have it open
	Targets      int  // of the live table; 0 if there is none
	Live         bool // has a live table: is active
	ReadOnly     bool
	Suspended    bool // reads wait until it is resumed
}

// String is the name.
func (d Device) String() string { return d.Name }

// key is how ioctls name the device: by UUID, which outlives a rename.
func (d Device) key() request {
	if d.UUID != "" {
		return request{uuid: d.UUID}
	}
	return request{name: d.Name}
}

// Target is one line of a device's table or status.
type Target struct {
	Start, Length uint64 // in sectors of 512 bytes
	Type          string // "linear", "thin-pool", "snapshot"
	Params        string // what `dmsetup table` or `status` prints after the type
}

// Number is a device number.
type Number struct{ Major, Minor uint32 }

func (n Number) String() string { return fmt.Sprintf("%d:%d", n.Major, n.Minor) }

// Number returns the device's number.
func (d Device) Number() Number { return Number{d.Major, d.Minor} }

// Control is the open control device. Its methods may be called at the same
// time from several goroutines.
type Control struct{ f *os.File }

// Open opens the control device, which takes root's rights. ErrNone says that
// there is no device-mapper, errors.ErrUnsupported that this is no Linux.
func Open() (*Control, error) {
	f, err := openControl()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	case err != nil:
		return nil, err
	}
	c := &Control{f}
	if _, _, err := c.run("version", cmdVersion, request{}); err != nil {
		f.Close()
		return nil, err
	}
	return c, nil
}

// Close closes the control device.
func (c *Control) Close() error { return c.f.Close() }

// Devices lists all devices that there are, in the kernel's order. One that is
// removed or renamed meanwhile may be missing.
func (c *Control) Devices() ([]Device, error) {
	_, data, err := c.run("list devices", cmdListDevices, request{})
	if err != nil {
		return nil, err
	}
	names, err := decodeNames(data)
	if err != nil {
		return nil, &Error{Op: "list devices", Err: err}
	}
	all := make([]Device, 0, len(names))
	for _, name := range names {
		switch d, err := c.ByName(name); {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return nil, err
		default:
			all = append(all, d)
		}
	}
	return all, nil
}

// ByName finds a device by its name as the kernel has it, without the
// escapes of /dev/mapper. ErrNotFound says that there is none.
func (c *Control) ByName(name string) (Device, error) {
	return c.status(request{name: name})
}

// ByUUID finds a device by its UUID. ErrNotFound says that there is none.
func (c *Control) ByUUID(uuid string) (Device, error) {
	return c.status(request{uuid: uuid})
}

func (c *Control) status(req request) (Device, error) {
	h, _, err := c.run("device status", cmdDevStatus, req)
	if err != nil {
		return Device{}, err
	}
	return h.device(), nil
}

// Table returns the live table of a device; the parameters name other devices
// as major:minor.
func (c *Control) Table(d Device) ([]Target, error) {
	return c.targets("table", d, flagStatusTable|flagNoFlush)
}

// Status returns the status of each target. Unlike `dmsetup status` without
// --noflush it makes no thin pool commit its metadata.
func (c *Control) Status(d Device) ([]Target, error) {
	return c.targets("status", d, flagNoFlush)
}

func (c *Control) targets(op string, d Device, flags uint32) ([]Target, error) {
	req := d.key()
	req.flags = flags
	h, data, err := c.run(op, cmdTableStatus, req)
	if err != nil {
		return nil, err
	}
	targets, err := decodeTargets(data, h.targetCount)
	if err != nil {
		return nil, &Error{Op: op, Device: d.Name, Err: err}
	}
	return targets, nil
}

// Message sends a message to the target that holds a sector of the device, and
// returns its answer, mostly none. An errno of the target is in the error:
// errors.Is(err, syscall.EBUSY).
func (c *Control) Message(d Device, sector uint64, message string) (string, error) {
	req := d.key()
	req.data = encodeMessage(sector, message)
	h, data, err := c.run("message "+message, cmdTargetMsg, req)
	if err != nil {
		return "", err
	}
	if h.flags&flagDataOut == 0 {
		return "", nil
	}
	return cString(data), nil
}
