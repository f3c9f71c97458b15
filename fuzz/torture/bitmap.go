package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"cbt/fuzz/tool"
)

// missedByQEMU says whether all that differs between two files is in places
// that a bitmap, as QEMU reads it, calls clean: QEMU 7.2 writes compressed
// clusters over others when one was refused before.
func (h *history) missedByQEMU(image, bitmap, got, truth string) bool {
	dirty, err := h.dirty(image, bitmap)
	if err != nil {
		h.problem("asking QEMU for bitmap %s: %v", bitmap, err)
		return false
	}
	a, errA := os.ReadFile(got)
	b, errB := os.ReadFile(truth)
	if errA != nil || errB != nil || len(a) != len(b) {
		return false
	}
	for _, r := range dirty {
		lo, hi := min(r.Offset, int64(len(a))), min(r.Offset+r.Length, int64(len(a)))
		if r.Type&1 != 0 && !bytes.Equal(a[lo:hi], b[lo:hi]) {
			return false
		}
	}
	return true
}

type bitmapRange struct {
	Offset, Length int64
	Type           uint32 // bit 0: dirty
}

// dirty asks qemu-nbd for a bitmap.
func (h *history) dirty(image, bitmap string) ([]bitmapRange, error) {
	short, err := os.MkdirTemp("/tmp", "cbt-nbd-") // the name of a socket has 107 bytes
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(short)
	socket := filepath.Join(short, "socket")
	serve := []string{"--fork", "-r", "-f", "qcow2", "-B", bitmap, "-k", socket, image}
	if r := (tool.Cmd{Dir: h.dir}).Run("qemu-nbd", serve...); r.Failed() {
		return nil, errors.New("qemu-nbd: " + r.Message())
	}
	// It ends with its only client.
	r := tool.Cmd{Dir: h.dir}.Run("nbdinfo", "--json", "--map=qemu:dirty-bitmap:"+bitmap, "nbd+unix:///?socket="+socket)
	if r.Failed() {
		return nil, errors.New("nbdinfo: " + r.Message())
	}
	var list []bitmapRange
	err = json.Unmarshal(r.Stdout, &list)
	return list, err
}
