package cli

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// backgroundAttr starts a process in a session of its own.
func backgroundAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// detachStderr puts /dev/null in the place of this process's stderr.
func detachStderr() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	return unix.Dup3(int(null.Fd()), int(os.Stderr.Fd()), 0)
}
