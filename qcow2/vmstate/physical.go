package vmstate

import (
	"fmt"
	"strings"
)

// Range is a piece of guest physical memory: Len bytes of a block, from Off on, at Addr.
type Range struct {
	Addr     uint64 // guest physical address
	Block    *Block
	Off, Len int64
}

// The range that VGA hides from the processor, whatever RAM holds there.
const vgaLow, vgaHigh = 0xa0000, 0xc0000

const fourGiB = 4 << 30

// machineFamily tells how QEMU lays out the RAM of a family of machines. If the RAM is smaller than
// limit, all of it is low. Otherwise low bytes of it are, and the rest starts at 4 GiB
// (hw/i386/pc_piix.c, pc_q35.c, microvm.c).
type machineFamily struct {
	prefix     string
	limit, low int64
}

var families = []machineFamily{
	{"pc-q35-", 0xb0000000, 0x80000000},
	{"q35", 0xb0000000, 0x80000000},
	{"pc-", 0xe0000000, 0xc0000000},
	{"pc", 0xe0000000, 0xc0000000},
	{"isapc", fourGiB, fourGiB},
	{"microvm", 0xc0000000 + 1, 0xc0000000},
}

// RAMRanges returns where RAM lies in the guest's physical memory, in ascending order: the RAM of
// the machine without the part that VGA hides, and its firmware below 4 GiB. machine is the machine
// type for states that name none, or empty. If the layout cannot be known, the error tells why.
func (s *State) RAMRanges(machine string) ([]Range, error) {
	ram, err := s.mainRAM()
	if err != nil {
		if s.MachineType != "" && familyOf(s.MachineType) == nil {
			err = unknownMachine(s.MachineType)
		}
		return nil, err
	}
	low, err := s.lowRAM(machine, ram)
	if err != nil {
		return nil, err
	}
	var list []Range
	add := func(addr uint64, b *Block, off, n int64) {
		if n > 0 {
			list = append(list, Range{addr, b, off, n})
		}
	}
	add(0, ram, 0, min(low, vgaLow))
	add(vgaHigh, ram, vgaHigh, low-vgaHigh)
	if bios := s.Block("pc.bios"); bios != nil && !bios.Shared && bios.length <= 16<<20 && low <= fourGiB-bios.length {
		add(uint64(fourGiB-bios.length), bios, 0, bios.length)
	}
	add(fourGiB, ram, low, ram.length-low)
	return list, nil
}

// mainRAM returns the block that is the machine's RAM: pc.ram, microvm.ram, or the one that has the
// name of a memory backend, which has no path in it.
func (s *State) mainRAM() (*Block, error) {
	var found []*Block
	for _, b := range s.Blocks {
		switch {
		case b.Name == "pc.ram", b.Name == "microvm.ram":
			found = append(found, b)
		case strings.ContainsAny(b.Name, "/.") || strings.HasPrefix(b.Name, "system.flash"):
		default:
			found = append(found, b)
		}
	}
	switch {
	case len(found) == 0:
		return nil, fmt.Errorf("no block is known to be the machine's RAM")
	case len(found) > 1:
		return nil, fmt.Errorf("the addresses of the blocks %q and %q are not known: a machine with several has NUMA nodes or modules", found[0].Name, found[1].Name)
	}
	if found[0].Shared {
		return nil, found[0].shared()
	}
	return found[0], nil
}

// lowRAM returns how many bytes of the RAM lie below 4 GiB. The value that the firmware reads from
// the clock's CMOS (pc_cmos_init) takes precedence over the machine type, because of
// max-ram-below-4g.
func (s *State) lowRAM(machine string, ram *Block) (int64, error) {
	if low, ok := s.cmosLow(ram); ok {
		return low, nil
	}
	if s.MachineType != "" {
		machine = s.MachineType
	}
	if machine == "" {
		return 0, fmt.Errorf("the state does not name its machine type, which tells where RAM is")
	}
	f := familyOf(machine)
	switch {
	case f == nil:
		return 0, unknownMachine(machine)
	case ram.length < f.limit:
		return ram.length, nil
	}
	return min(f.low, ram.length), nil
}

// familyOf returns the family of a machine type, or nil if it is not known.
func familyOf(machine string) *machineFamily {
	for i := range families {
		if strings.HasPrefix(machine, families[i].prefix) {
			return &families[i]
		}
	}
	return nil
}

func unknownMachine(machine string) error {
	return fmt.Errorf("the addresses of RAM in a machine of type %q are not known", machine)
}

// cmosLow returns the size of RAM below 4 GiB according to the CMOS. Bytes 0x34 and 0x35 hold the
// part of it above 16 MiB, and 0x5b to 0x5d the RAM above 4 GiB, both in units of 64 KiB. The two
// must add up to the size of the RAM.
func (s *State) cmosLow(ram *Block) (int64, bool) {
	for _, d := range s.decodable {
		if d.name != rtcDevice {
			continue
		}
		r := fieldReader{s: s, d: d}
		b := r.bytes("cmos_data", 128)
		if r.err != nil {
			return 0, false
		}
		low := 16<<20 + (int64(b[0x34])|int64(b[0x35])<<8)<<16
		high := (int64(b[0x5b]) | int64(b[0x5c])<<8 | int64(b[0x5d])<<16) << 16
		return low, low > 16<<20 && low <= fourGiB && low+high == ram.length
	}
	return 0, false
}
