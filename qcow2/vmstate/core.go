package vmstate

import (
	"bytes"
	"debug/elf"
	"encoding/binary"

	"cbt/sparse"
)

const (
	elfHeaderSize  = 64 // Elf64_Ehdr
	elfProgramSize = 56 // Elf64_Phdr
	prStatusSize   = 336
	prStatus32Size = 144
	qemuNoteSize   = 440
	coreAlign      = 4096
)

// Core is an ELF core file of a machine, by guest physical address, as QEMU's dump-guest-memory
// writes it. It holds a note for each processor, and the RAM. gdb, crash and Volatility read it.
type Core struct {
	sparse.View
	// CPUs is the number of processors whose registers it contains. If it is 0, NoCPUs is the
	// reason.
	CPUs   int
	NoCPUs error
}

// Core returns the core file for the given ranges, as RAMRanges returns them. ram has the same
// meaning as in WriteStream.
func (s *State) Core(ranges []Range, ram Content) (*Core, error) {
	c := &Core{}
	cpus, err := s.CPUs()
	if err != nil {
		cpus, c.NoCPUs = nil, err
	}
	c.CPUs = len(cpus)
	notes := appendNotes(nil, cpus)

	le := binary.LittleEndian
	h := append([]byte(elf.ELFMAG), byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT), 0, 0, 0, 0, 0, 0, 0, 0, 0)
	h = le.AppendUint16(h, uint16(elf.ET_CORE))
	machine := elf.EM_X86_64
	if len(cpus) > 0 && !cpus[0].LongMode {
		machine = elf.EM_386 // as QEMU writes it for a 32-bit system
	}
	h = le.AppendUint16(h, uint16(machine))
	h = le.AppendUint32(h, uint32(elf.EV_CURRENT))
	h = le.AppendUint64(h, 0)             // e_entry
	h = le.AppendUint64(h, elfHeaderSize) // e_phoff
	h = le.AppendUint64(h, 0)             // e_shoff
	h = le.AppendUint32(h, 0)             // e_flags
	for _, n := range []int{elfHeaderSize, elfProgramSize, 1 + len(ranges), 0, 0, 0} {
		h = le.AppendUint16(h, uint16(n))
	}
	at := int64(elfHeaderSize + elfProgramSize*(1+len(ranges)))
	h = appendProgram(h, elf.PT_NOTE, at, 0, int64(len(notes)))
	at += int64(len(notes))

	f := &flat{}
	var loads []flatPart
	for _, r := range ranges {
		at = (at + coreAlign - 1) / coreAlign * coreAlign
		v, err := r.Block.content(ram)
		if err != nil {
			return nil, err
		}
		h = appendProgram(h, elf.PT_LOAD, at, r.Addr, r.Len)
		loads = append(loads, flatPart{at, r.Len, v, r.Off})
		at += r.Len
	}
	h = append(h, notes...)
	f.add(flatPart{0, int64(len(h)), sparse.Plain(bytes.NewReader(h), int64(len(h))), 0})
	for _, p := range loads {
		f.add(p)
	}
	c.View = f
	return c, nil
}

// appendProgram appends an Elf64_Phdr.
func appendProgram(b []byte, kind elf.ProgType, off int64, addr uint64, size int64) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(kind))
	b = le.AppendUint32(b, 0)
	// p_vaddr equals p_paddr, as QEMU writes it without paging: gdb reads by p_vaddr.
	for _, v := range []uint64{uint64(off), addr, addr, uint64(size), uint64(size), 0} {
		b = le.AppendUint64(b, v)
	}
	return b
}

// appendNotes appends an NT_PRSTATUS and a QEMU note for each processor
// (target/i386/arch_dump.c).
func appendNotes(b []byte, cpus []CPU) []byte {
	for _, c := range cpus {
		status := c.prStatus()
		if !cpus[0].LongMode {
			status = c.prStatus32()
		}
		b = appendNote(b, "CORE", 1, status)
	}
	for _, c := range cpus {
		b = appendNote(b, "QEMU", 0, c.qemuNote())
	}
	return b
}

func appendNote(b []byte, name string, kind uint32, desc []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(len(name)+1))
	b = le.AppendUint32(b, uint32(len(desc)))
	b = le.AppendUint32(b, kind)
	b = append(append(b, name...), make([]byte, 4-len(name)%4)...)
	return append(b, desc...)
}

// prStatus returns a struct elf_prstatus of Linux: the process number at 32, the registers in the
// order of struct user_regs_struct at 112.
func (c *CPU) prStatus() []byte {
	b := make([]byte, prStatusSize)
	le := binary.LittleEndian
	le.PutUint32(b[32:], c.Index+1)
	r, s := &c.Regs, &c.Segments
	for i, v := range []uint64{
		r[15], r[14], r[13], r[12], r[5], r[3], r[11], r[10], r[9], r[8], r[0], r[1], r[2], r[6], r[7],
		0, c.IP, uint64(s[1].Selector), c.Flags, r[4], uint64(s[2].Selector),
		s[4].Base, s[5].Base, uint64(s[3].Selector), uint64(s[0].Selector), uint64(s[4].Selector), uint64(s[5].Selector),
	} {
		le.PutUint64(b[112+8*i:], v)
	}
	return b
}

// prStatus32 returns the elf_prstatus of a 32-bit system: the process number at 24, the registers
// at 72.
func (c *CPU) prStatus32() []byte {
	b := make([]byte, prStatus32Size)
	le := binary.LittleEndian
	le.PutUint32(b[24:], c.Index+1)
	r, s := &c.Regs, &c.Segments
	for i, v := range []uint32{
		uint32(r[3]), uint32(r[1]), uint32(r[2]), uint32(r[6]), uint32(r[7]), uint32(r[5]), uint32(r[0]),
		s[3].Selector, s[0].Selector, s[4].Selector, s[5].Selector,
		0, uint32(c.IP), s[1].Selector, uint32(c.Flags), uint32(r[4]), s[2].Selector,
	} {
		le.PutUint32(b[72+4*i:], v)
	}
	return b
}

// qemuNote returns QEMU's own QEMUCPUState.
func (c *CPU) qemuNote() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(make([]byte, 0, qemuNoteSize), 1)
	b = le.AppendUint32(b, qemuNoteSize)
	r, s := &c.Regs, &c.Segments
	for _, v := range []uint64{r[0], r[3], r[1], r[2], r[6], r[7], r[4], r[5], r[8], r[9], r[10], r[11], r[12], r[13], r[14], r[15], c.IP, c.Flags} {
		b = le.AppendUint64(b, v)
	}
	for _, g := range []Segment{s[1], s[3], s[0], s[4], s[5], s[2], c.LDT, c.TR, c.GDT, c.IDT} {
		for _, v := range []uint32{g.Selector, g.Limit, g.Flags, 0} {
			b = le.AppendUint32(b, v)
		}
		b = le.AppendUint64(b, g.Base)
	}
	for _, v := range c.CR {
		b = le.AppendUint64(b, v)
	}
	return le.AppendUint64(b, c.KernelGSBase)
}
