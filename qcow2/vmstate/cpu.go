package vmstate

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
)

// CPU holds those parts of the state of an x86-64 processor that go into a core file. The orders of
// registers are QEMU's (target/i386/cpu.h).
type CPU struct {
	Index             uint32
	Regs              [16]uint64 // rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15
	IP, Flags         uint64
	Segments          [6]Segment // es, cs, ss, ds, fs, gs
	LDT, TR, GDT, IDT Segment
	CR                [5]uint64 // 1 is unused
	KernelGSBase      uint64
	LongMode          bool // it runs 64-bit code, or 32-bit code under a 64-bit system
}

// Segment is a segment register with the parts of its descriptor that the processor caches.
type Segment struct {
	Selector, Limit, Flags uint32
	Base                   uint64
}

const (
	segmentSize = 20      // selector, base, limit, flags (vmstate_segment)
	longMode    = 1 << 14 // HF_LMA_MASK
)

// ErrNoCPU means that a state has no x86-64 processor that could be decoded.
var ErrNoCPU = errors.New("no x86-64 processor is described")

// CPUs decodes the processors and returns them in the order of their numbers. The error is ErrNoCPU
// if the state describes none. Otherwise it names a field that is missing or has the wrong size, or
// is an error of reading the state.
func (s *State) CPUs() ([]CPU, error) {
	var list []CPU
	for _, d := range s.decodable {
		if d.name != cpuDevice {
			continue
		}
		r := fieldReader{s: s, d: d}
		c := CPU{Index: d.instance, IP: r.u64("env.eip"), Flags: r.u64("env.eflags"), KernelGSBase: r.u64("env.kernelgsbase")}
		c.LongMode = binary.BigEndian.Uint32(r.bytes("env.hflags", 4))&longMode != 0
		for i, b := 0, r.bytes("env.regs", 16*8); i < 16; i++ {
			c.Regs[i] = binary.BigEndian.Uint64(b[8*i:])
		}
		for i, b := 0, r.bytes("env.segs", 6*segmentSize); i < 6; i++ {
			c.Segments[i] = segment(b[segmentSize*i:])
		}
		for name, to := range map[string]*Segment{"env.ldt": &c.LDT, "env.tr": &c.TR, "env.gdt": &c.GDT, "env.idt": &c.IDT} {
			*to = segment(r.bytes(name, segmentSize))
		}
		for i, name := range map[int]string{0: "env.cr[0]", 2: "env.cr[2]", 3: "env.cr[3]", 4: "env.cr[4]"} {
			c.CR[i] = r.u64(name)
		}
		if r.err != nil {
			return nil, r.err
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, ErrNoCPU
	}
	slices.SortStableFunc(list, func(a, b CPU) int { return cmp.Compare(a.Index, b.Index) })
	return list, nil
}

func segment(b []byte) Segment {
	be := binary.BigEndian
	return Segment{Selector: be.Uint32(b), Base: be.Uint64(b[4:]), Limit: be.Uint32(b[12:]), Flags: be.Uint32(b[16:])}
}
