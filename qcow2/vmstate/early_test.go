package vmstate

import (
	"bytes"
	"slices"
	"testing"

	"cbt/sparse"
)

func (h *hand) text(text string) {
	h.bytes(vmEOF, vmDescription)
	h.u32(uint32(len(text)))
	*h = append(*h, text...)
}

func (h *hand) device(id uint32, name string, payload string) {
	h.bytes(vmFull)
	h.u32(id)
	h.counted(name)
	h.u32(0)
	h.u32(1)
	*h = append(*h, payload...)
}

// From QEMU 8.0 on there are devices before RAM, and the description that their sections need is at
// the very end. They stay before RAM.
func TestDeviceBeforeRAM(t *testing.T) {
	var h hand
	h.header()
	h.device(9, "early", "abc")
	h.ram(4096)
	h.part(vmPart, func() { h.u64(ramPage); h.counted("a"); h = append(h, bytes.Repeat([]byte{7}, 4096)...) })
	h.part(vmEnd, func() {})
	h.device(7, "dev", "\x05\x03sub\x00\x00\x00\x01xy")
	h.text(`{"page_size":4096,"devices":[{"name":"early","instance_id":0,"version":1,"fields":[{"type":"buffer","size":1,"array_len":3}]},` +
		`{"name":"dev","instance_id":0,"version":1,"fields":[],"subsections":[{"vmsd_name":"sub","version":1,"fields":[` +
		`{"type":"struct","size":9,"struct":{"fields":[{"size":2,"type":"tmp","struct":{"fields":[{"size":50}]}}]}}]}]}]}`)
	s, err := h.open(t)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Devices, []Device{{"early", 0, 1, 3}, {"dev", 0, 1, 11}}) || s.Complete() != nil {
		t.Error(s.Devices, s.Complete())
	}
	// It is canonical already, except for the section that holds the page.
	if !bytes.Equal(stream(t, s), h) {
		t.Errorf("%q\n%q", stream(t, s), h)
	}
}

// A shared block has no record: its content is elsewhere, and is not zeros.
func TestIgnoreShared(t *testing.T) {
	var h hand
	h.header()
	h.bytes(vmSubsection)
	h.counted("configuration/capabilities")
	h.u32(1)
	h.u32(1)
	h.counted("x-ignore-shared")
	h.bytes(vmStart)
	h.u32(2)
	h.counted("ram")
	h.u32(0)
	h.u32(ramVersion)
	h.u64(8192 | ramMemSize)
	for i, name := range []string{"own", "shared"} {
		h.counted(name)
		h.u64(4096)
		h.u64(uint64(i) << 32)
	}
	h.u64(ramEOS)
	h.part(vmPart, func() { h.u64(ramZero); h.counted("own"); h.bytes(0) })
	h.end(nil, `"fields":[]`)
	s, err := h.open(t)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		own, shared := s.Block("own"), s.Block("shared")
		if own.Shared || !shared.Shared || shared.Address != 1<<32 {
			t.Errorf("%+v %+v", own, shared)
		}
		if _, err := shared.ReadAt(make([]byte, 1), 0); err == nil {
			t.Error("a shared block was read")
		}
		if _, err := sparse.Collect(shared.Extents(0, 4096)); err == nil {
			t.Error("a shared block has extents")
		}
		skeleton := make([]byte, s.Skeleton().Size())
		if _, err := sparse.ReadFull(s.Skeleton(), skeleton, 0); err != nil {
			t.Fatal(err)
		}
		s = open(t, skeleton, Options{})
	}
}
