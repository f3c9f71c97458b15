//go:build !linux

package cli

// hostVolumeAt says which volume in use the device at path is: only Linux has
// any.
func hostVolumeAt(string) (volumeRef, bool) { return volumeRef{}, false }

func hostVolumeName(string) (volumeRef, bool) { return volumeRef{}, false }
