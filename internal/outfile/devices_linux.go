package outfile

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// devices is where the kernel's devices have their names.
const devices = "/dev"

// RefuseNew returns ErrNoDevice for a path where no new file belongs: among the
// devices. Other file systems that are mounted there, such as /dev/shm, are no
// such place.
func RefuseNew(path string) error {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil || dir != devices && !strings.HasPrefix(dir, devices+"/") || strings.HasPrefix(dir+"/", devices+"/shm/") {
		return nil // what else is wrong with it, making the file tells
	}
	var all, there unix.Stat_t
	if unix.Stat(devices, &all) != nil || unix.Stat(dir, &there) != nil || all.Dev != there.Dev {
		return nil
	}
	return &os.PathError{Op: "create", Path: path, Err: ErrNoDevice}
}
