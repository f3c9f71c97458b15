package vmstate

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

// ErrNotCore means that a file is not an ELF core file.
var ErrNotCore = errors.New("not an ELF core file")

// Limits on what the headers of a core file may claim.
const (
	maxSegments = 1 << 16
	maxNotes    = 1 << 16
	phnumInInfo = 0xffff // PN_XNUM
)

// Dump is a core file of a machine, as written by Core, by QEMU's dump-guest-memory and by virsh
// dump --memory-only.
type Dump struct {
	Architecture string // "X86_64", "S390", ...
	CPUs         int    // processors whose registers it contains
	Segments     []DumpSegment

	src  io.ReaderAt
	size int64
}

// DumpSegment is a piece of guest physical memory in a core file. Past its first Stored bytes it
// reads as zeros.
type DumpSegment struct {
	Addr        uint64 // guest physical address
	Len, Stored int64  // in bytes
	Off         int64  // in the file, in bytes
}

// elfReader reads integers of either class and byte order.
type elfReader struct {
	binary.ByteOrder
	wide bool
}

// word returns an address or an offset.
func (e elfReader) word(b []byte) uint64 {
	if e.wide {
		return e.Uint64(b)
	}
	return uint64(e.Uint32(b))
}

// OpenDump reads the headers of a core file in the first size bytes of r. It returns ErrNotCore if
// the file is not a core file, and a *sparse.FormatError if it is a damaged one. Errors of r are
// passed on. The Dump is not changed after that.
func OpenDump(r io.ReaderAt, size int64) (*Dump, error) {
	const what = "ELF header"
	h := make([]byte, elfHeaderSize)
	if size < int64(len(h)) {
		return nil, ErrNotCore
	}
	if err := binfmt.Fill(r, size, what, h, 0); err != nil {
		return nil, err
	}
	e := elfReader{binary.LittleEndian, h[4] == byte(elf.ELFCLASS64)}
	if h[5] == byte(elf.ELFDATA2MSB) {
		e.ByteOrder = binary.BigEndian
	}
	if string(h[:4]) != elf.ELFMAG || h[4] != byte(elf.ELFCLASS32) && !e.wide || h[5] != byte(elf.ELFDATA2LSB) && h[5] != byte(elf.ELFDATA2MSB) || e.Uint16(h[16:]) != uint16(elf.ET_CORE) {
		return nil, ErrNotCore
	}
	d := &Dump{src: r, size: size, Architecture: strings.TrimPrefix(elf.Machine(e.Uint16(h[18:])).String(), "EM_")}
	phoff, shoff, phentsize, phnum, min := e.word(h[28:]), e.word(h[32:]), e.Uint16(h[42:]), uint32(e.Uint16(h[44:])), 32
	if e.wide {
		phoff, shoff, phentsize, phnum, min = e.word(h[32:]), e.word(h[40:]), e.Uint16(h[54:]), uint32(e.Uint16(h[56:])), elfProgramSize
	}
	if phnum == phnumInInfo {
		at := uint64(28) // sh_info of the first section
		if e.wide {
			at = 44
		}
		b, err := binfmt.Read(r, size, "ELF section header", shoff+at, 4, 4)
		if err != nil {
			return nil, err
		}
		phnum = e.Uint32(b)
	}
	switch {
	case phnum > maxSegments:
		return nil, &sparse.FormatError{Struct: what, Field: "e_phnum", Off: 0, Value: phnum, Msg: fmt.Sprintf("more than %d", maxSegments)}
	case phnum > 0 && int(phentsize) < min:
		return nil, &sparse.FormatError{Struct: what, Field: "e_phentsize", Off: 0, Value: phentsize, Msg: fmt.Sprintf("less than %d", min)}
	}
	for i := range uint64(phnum) {
		if err := d.program(e, phoff+i*uint64(phentsize)); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// program reads the program header at at.
func (d *Dump) program(e elfReader, at uint64) error {
	const what = "ELF program header"
	n := uint64(32)
	if e.wide {
		n = elfProgramSize
	}
	b, err := binfmt.Read(d.src, d.size, what, at, n, n)
	if err != nil {
		return err
	}
	off, paddr, filesz, memsz := e.word(b[4:]), e.word(b[12:]), e.word(b[16:]), e.word(b[20:])
	if e.wide {
		off, paddr, filesz, memsz = e.word(b[8:]), e.word(b[24:]), e.word(b[32:]), e.word(b[40:])
	}
	kind := elf.ProgType(e.Uint32(b))
	if kind != elf.PT_LOAD && kind != elf.PT_NOTE {
		return nil
	}
	switch {
	case !binfmt.Inside(off, filesz, d.size):
		return &sparse.FormatError{Struct: what, Off: int64(at), Field: "p_offset", Value: off, Msg: fmt.Sprintf("its %d bytes are not inside the file of %d: it is cut", filesz, d.size)}
	case kind == elf.PT_NOTE:
		return d.notes(e, int64(off), int64(off+filesz))
	case memsz < filesz || memsz > 1<<62 || paddr > 1<<62:
		return &sparse.FormatError{Struct: what, Off: int64(at), Field: "p_memsz", Value: memsz, Msg: fmt.Sprintf("of %d bytes in the file, at 0x%x", filesz, paddr)}
	case memsz > 0:
		d.Segments = append(d.Segments, DumpSegment{paddr, int64(memsz), int64(filesz), int64(off)})
	}
	return nil
}

// notes counts the processors in the notes at [at, end).
func (d *Dump) notes(e elfReader, at, end int64) error {
	const what = "ELF note"
	for i := 0; end-at >= 12 && i < maxNotes; i++ {
		b, err := binfmt.Read(d.src, d.size, what, uint64(at), 12, 12)
		if err != nil {
			return err
		}
		name, desc, kind := int64(e.Uint32(b)), int64(e.Uint32(b[4:])), e.Uint32(b[8:])
		if kind == uint32(elf.NT_PRSTATUS) && name == int64(len("CORE\x00")) {
			text, err := binfmt.Read(d.src, d.size, what, uint64(at+12), uint64(name), uint64(name))
			if err != nil {
				return err
			}
			if string(text) == "CORE\x00" {
				d.CPUs++
			}
		}
		at += 12 + (name+3)&^3 + (desc+3)&^3
	}
	return nil
}

// Piece is a run of guest physical memory.
type Piece struct {
	Addr uint64 // guest physical address
	sparse.View
}

// Pieces returns the runs of memory in the file, in ascending order. Segments that follow one
// another are joined; segments that overlap are separate pieces. file is the core file itself.
func (d *Dump) Pieces(file sparse.View) []Piece {
	list := slices.Clone(d.Segments)
	slices.SortStableFunc(list, func(a, b DumpSegment) int {
		switch {
		case a.Addr < b.Addr:
			return -1
		case a.Addr > b.Addr:
			return 1
		}
		return 0
	})
	var pieces []Piece
	var last *flat
	for _, s := range list {
		if n := len(pieces); n == 0 || pieces[n-1].Addr+uint64(last.size) != s.Addr || last.size > 1<<61 {
			last = &flat{}
			pieces = append(pieces, Piece{s.Addr, last})
		}
		at := last.size
		last.add(flatPart{at, s.Stored, file, s.Off})
		last.size = at + s.Len
	}
	return pieces
}
