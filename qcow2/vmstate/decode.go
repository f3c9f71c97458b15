package vmstate

import (
	"encoding/binary"
	"fmt"

	"cbt/sparse"
)

// Devices some of whose fields are decoded.
const (
	cpuDevice = "cpu"
	rtcDevice = "mc146818rtc"

	maxDecodable = 8192 // sections; QEMU has at most 4096 processors
)

// decodable holds the places of the fields of a device's section, by the names that the description
// gives them.
type decodable struct {
	name     string
	instance uint32
	fields   map[string]piece
}

// decode starts to record the fields of a device's section. It returns nil if the fields of this
// device are not decoded.
func (s *State) decode(name string, instance uint32) *decodable {
	if name != cpuDevice && name != rtcDevice || len(s.decodable) == maxDecodable {
		return nil
	}
	d := &decodable{name, instance, map[string]piece{}}
	s.decodable = append(s.decodable, d)
	return d
}

// wantedFields lists the fields that a decoder reads; others are not kept.
var wantedFields = map[string]bool{
	"env.regs": true, "env.eip": true, "env.eflags": true, "env.hflags": true, "env.segs": true, "env.ldt": true, "env.tr": true, "env.gdt": true, "env.idt": true,
	"env.cr[0]": true, "env.cr[2]": true, "env.cr[3]": true, "env.cr[4]": true, "env.kernelgsbase": true,
	"cmos_data": true,
}

// note records that a field lies at [from, to). An array whose elements are described one by one
// counts as one field.
func (d *decodable) note(name string, from, to int64) {
	if d == nil || !wantedFields[name] {
		return
	}
	f, ok := d.fields[name]
	if ok && f.off+f.n != from {
		return
	}
	if !ok {
		f.off = from
	}
	f.n += to - from
	d.fields[name] = f
}

// fieldReader reads fields of one section and keeps the first error.
type fieldReader struct {
	s   *State
	d   *decodable
	err error
}

// bytes returns a field of n bytes.
func (r *fieldReader) bytes(name string, n int64) []byte {
	b := make([]byte, n)
	f, ok := r.d.fields[name]
	switch {
	case r.err != nil:
	case !ok:
		r.err = fmt.Errorf("section %q of instance %d has no field %s", r.d.name, r.d.instance, name)
	case f.n != n:
		r.err = fmt.Errorf("section %q of instance %d: %s has %d bytes, want %d", r.d.name, r.d.instance, name, f.n, n)
	default:
		_, r.err = sparse.ReadFull(r.s.src, b, f.off)
	}
	return b
}

func (r *fieldReader) u64(name string) uint64 { return binary.BigEndian.Uint64(r.bytes(name, 8)) }
