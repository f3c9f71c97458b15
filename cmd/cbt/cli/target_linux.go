package cli

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const openNonblock = unix.O_NONBLOCK

// incompleteAttr marks a file that is being written. Unlike its record it
// stays with the file when that gets another name, has two, or is copied with
// its attributes.
const incompleteAttr = "user.cbt.incomplete"

func markIncomplete(f *os.File) error {
	return maySkip(unix.Fsetxattr(int(f.Fd()), incompleteAttr, []byte("1"), 0))
}

func unmarkIncomplete(f *os.File) error {
	return maySkip(unix.Fremovexattr(int(f.Fd()), incompleteAttr))
}

func isMarkedIncomplete(f *os.File) bool {
	_, err := unix.Fgetxattr(int(f.Fd()), incompleteAttr, nil)
	return err == nil
}

// maySkip forgives file systems and devices without such attributes, and files
// without this one.
func maySkip(err error) error {
	for _, harmless := range []error{unix.ENOTSUP, unix.EPERM, unix.ENODATA, unix.ENOSYS} {
		if errors.Is(err, harmless) {
			return nil
		}
	}
	return err
}
