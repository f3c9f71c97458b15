package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

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
