package cli

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"cbt/internal/dm"
)

// hostVolumeAt says which volume in use the device at path is.
func hostVolumeAt(path string) (volumeRef, bool) {
	st, err := os.Stat(path)
	if err != nil || st.Mode()&os.ModeDevice == 0 || st.Mode()&os.ModeCharDevice != 0 {
		return volumeRef{}, false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return volumeRef{}, false
	}
	number := dm.Number{Major: unix.Major(uint64(sys.Rdev)), Minor: unix.Minor(uint64(sys.Rdev))}
	ctl, err := dm.Open()
	if err != nil {
		return volumeRef{}, false
	}
	defer ctl.Close()
	all, err := ctl.Devices()
	if err != nil {
		return volumeRef{}, false
	}
	for _, d := range all {
		if vg, lv, layer, ok := dm.SplitLVMUUID(d.UUID); ok && layer == dm.LayerNone && d.Number() == number {
			return volumeRef{group: vg, name: d.Name, id36: lv}, true
		}
	}
	return volumeRef{}, false
}
