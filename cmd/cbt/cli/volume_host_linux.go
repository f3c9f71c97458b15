package cli

import (
	"fmt"
	"os"
	"strings"
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
	of := fmt.Sprintf("/sys/dev/block/%d:%d/dm/", unix.Major(uint64(sys.Rdev)), unix.Minor(uint64(sys.Rdev)))
	uuid, err := os.ReadFile(of + "uuid")
	if err != nil {
		return volumeRef{}, false
	}
	vg, lv, layer, ok := dm.SplitLVMUUID(strings.TrimSpace(string(uuid)))
	if !ok || layer != dm.LayerNone {
		return volumeRef{}, false
	}
	return volumeRef{group: vg, name: path, uuid: lv}, true
}
