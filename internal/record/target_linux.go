package record

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"cbt/internal/infile"
)

// incompleteAttr marks a file that is being written. Unlike its record it
// stays with the file when that gets another name, has two, or is copied with
// its attributes.
const incompleteAttr = "user.cbt.incomplete"

func MarkIncomplete(f *os.File) error {
	return maySkip(unix.Fsetxattr(int(f.Fd()), incompleteAttr, []byte("1"), 0))
}

func UnmarkIncomplete(f *os.File) error {
	return maySkip(unix.Fremovexattr(int(f.Fd()), incompleteAttr))
}

func IsMarkedIncomplete(f *os.File) bool {
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

// DeviceState tells a block device from any other that gets its name: by the
// number that the kernel gives each device when it appears (diskseq, linux
// 5.15), of this boot. And it tells whether anything was written to it since:
// by the counts of writes and discards of the device and the disk that it is a
// part of (Documentation/block/stat.rst). What cannot be found out is empty,
// and fits nothing.
func DeviceState(f *os.File, st infile.Stat) (id, writes string) {
	// What others wrote and the kernel still holds back counts too.
	if f.Sync() != nil {
		return "", ""
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", ""
	}
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	dirs := []string{dir}
	if _, err := os.Stat(dir + "/partition"); err == nil {
		dirs = append(dirs, dir+"/..")
	}
	seq, err := os.ReadFile(dirs[len(dirs)-1] + "/diskseq")
	if err != nil {
		return "", ""
	}
	for _, d := range dirs {
		n := countedWrites(d)
		if n == "" {
			return "", ""
		}
		writes += n + ";"
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %x", boot, seq, st.Rdev))
	return "device:" + hex.EncodeToString(sum[:]), writes
}

// countedWrites are the requests and sectors that were written to the device of
// that directory of sysfs, and discarded.
func countedWrites(dir string) string {
	stat, err := os.ReadFile(dir + "/stat")
	n := strings.Fields(string(stat))
	if err != nil || len(n) < 15 {
		return ""
	}
	return strings.Join([]string{n[4], n[6], n[11], n[13]}, " ")
}

// DeviceWrites are those of a device; empty where the kernel does not count.
func DeviceWrites(st infile.Stat) string {
	n := countedWrites(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	if n != "" {
		n += ";"
	}
	return n
}
