package cli

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"cbt/internal/dm"
)

// hostVolumeName is the name that the kernel has for the volume in use at path,
// whatever link leads there.
func hostVolumeName(path string) (volumeRef, bool) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return volumeRef{}, false
	}
	name, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/dm/name", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	if err != nil {
		return volumeRef{}, false
	}
	return splitMapperName(strings.TrimSpace(string(name)))
}

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
