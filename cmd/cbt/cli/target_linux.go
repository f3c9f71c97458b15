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

// wasClosed says that f is what Go opened in place of a closed standard file:
// /dev/null for reading and writing, which a shell's > is not.
func wasClosed(f *os.File) bool {
	var st, null unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil || unix.Stat(os.DevNull, &null) != nil || st.Rdev != null.Rdev || st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return false
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_ACCMODE == unix.O_RDWR
}
