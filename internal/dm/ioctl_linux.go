package dm

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands, whose numbers differ between architectures.
const (
	cmdVersion     = unix.DM_VERSION
	cmdListDevices = unix.DM_LIST_DEVICES
	cmdDevStatus   = unix.DM_DEV_STATUS
	cmdTableStatus = unix.DM_TABLE_STATUS
	cmdTargetMsg   = unix.DM_TARGET_MSG
)

func openControl() (*os.File, error) {
	// The kernel wants a descriptor of that device, whatever its mode; all
	// rights are checked at each ioctl.
	f, err := os.OpenFile(controlNode, os.O_RDWR, 0)
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("%w: reading logical volumes in use takes root", err)
	}
	return f, err
}

// run issues one ioctl and returns the header and the data of the answer. The
// buffer grows until the answer fits, to 16 MiB.
func (c *Control) run(op string, cmd uint, req request) (header, []byte, error) {
	fail := func(err error) (header, []byte, error) {
		return header{}, nil, &Error{Op: op, Device: req.name + req.uuid, Err: err}
	}
	for size := firstBuffer; size <= maxBuffer; size *= 2 {
		buf := make([]byte, size)
		if err := req.encode(buf); err != nil {
			return fail(err)
		}
		if err := c.ioctl(cmd, buf); errors.Is(err, unix.ENXIO) {
			return fail(ErrNotFound)
		} else if err != nil {
			return fail(err)
		}
		h, data, err := decodeHeader(buf)
		if err != nil {
			return fail(err)
		}
		if h.flags&flagBufferFull == 0 {
			return h, data, nil
		}
		if cmd == cmdTargetMsg {
			// It was delivered; sending it again could do harm.
			return fail(errors.New("the answer is too long"))
		}
	}
	return fail(fmt.Errorf("the answer is longer than %d bytes", maxBuffer))
}

func (c *Control) ioctl(cmd uint, buf []byte) error {
	conn, err := c.f.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	err = conn.Control(func(fd uintptr) {
		for {
			_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, uintptr(cmd), uintptr(unsafe.Pointer(&buf[0])))
			// Signals interrupt only before the kernel began: it takes the
			// device's lock uninterruptibly.
			if errno != unix.EINTR || cmd == cmdTargetMsg {
				return
			}
		}
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}
