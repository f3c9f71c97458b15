package vmstate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

// ErrNotState means that a file does not begin like a saved machine state.
var ErrNotState = errors.New("not a QEMU machine state")

// TempFile is a file that nobody else can see: on Unix it is unlinked and has mode 0600.
type TempFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// Options of Open.
type Options struct {
	// Offset is where the state begins in the file, in bytes (file:PATH,offset=N). Offsets inside
	// mapped-ram states count from the beginning of the file.
	Offset int64
	// Temp creates the file that compressed states and pages are unpacked into. If Temp is nil,
	// such states are refused.
	Temp func() (TempFile, error)
	// HeadOnly reads only the head of a compressed state, see State.HeadOnly, and does not unpack
	// pages that are packed one by one. Blocks cannot be read then.
	HeadOnly bool
	// MaxRAM limits the memory of the machine, in bytes; 0 means DefaultMaxRAM.
	MaxRAM int64
}

// DefaultMaxRAM is 16 TiB.
const DefaultMaxRAM = 16 << 40

// State is a saved state of a machine. It is safe for concurrent use.
type State struct {
	// Container is how the state is stored: "stream", "mapped-ram", or "libvirt FORMAT".
	Container string
	// MachineType is QEMU's, such as "pc-i440fx-7.2"; empty if the stream has no configuration.
	MachineType string
	// UUID is the machine's, if the stream contains it (validate-uuid).
	UUID string
	// Capabilities lists those of the migration that a reader has to know.
	Capabilities []string
	// Version is the version of the stream, always 3.
	Version uint32
	// PageSize is the size of a guest page in bytes.
	PageSize int64
	// Blocks are the RAM blocks, the largest first, then by name.
	Blocks []*Block
	// Devices are the device sections in the order of the stream. It is empty if the stream does
	// not describe its devices: see Described.
	Devices []Device
	// Described means that the stream ends with the description of its devices and that all
	// sections fit it, so the state is whole. A stream without a description is read up to the end
	// of RAM, and nothing shows whether its end is there.
	Described bool
	// HeadOnly means that only the head of a compressed state was read. It tells which blocks there
	// are, but not their content, nor the devices, nor whether the state ends properly.
	HeadOnly bool
	// Libvirt is the header of a libvirt save image, nil for other states.
	Libvirt *Libvirt

	src       io.ReaderAt // the stream, unpacked if it was compressed
	size      int64
	temp      TempFile // unpacked pages
	unpack    TempFile // src, if it was compressed
	rest      *rest
	decodable []*decodable
	skimmed   bool // some pages were not unpacked
	closed    bool
}

// Device is a section of device state.
type Device struct {
	Name     string // "0000:00:01.1/ide"
	Instance uint32 // distinguishes devices of one name
	Version  uint32 // of the section's layout
	Size     int64  // of the payload in bytes, without header and footer
}

// Open reads the state in the first size bytes of r: the framing of the stream and the place of
// each page. It does not look at what follows the state, if the stream describes its devices. r
// must not change while the state is used. The error is ErrNotState if the file is not a state at
// all, and a *sparse.FormatError if the state is damaged. If something in it is not supported, the
// error names it.
func Open(r io.ReaderAt, size int64, opt Options) (*State, error) {
	if opt.MaxRAM <= 0 {
		opt.MaxRAM = DefaultMaxRAM
	}
	if opt.Offset < 0 || opt.Offset > size {
		return nil, fmt.Errorf("a machine state at offset %d of a file of %d bytes", opt.Offset, size)
	}
	s := &State{src: r, size: size, Container: "stream"}
	if err := s.open(opt); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *State) open(opt Options) error {
	start := opt.Offset
	var magic [16]byte
	n := min(int64(len(magic)), s.size-start)
	if err := binfmt.Fill(s.src, s.size, "machine state", magic[:n], uint64(start)); err != nil {
		return err
	}
	if bytes.HasPrefix(magic[:], []byte(libvirtMagic)) {
		l, err := readLibvirt(s.src, start, s.size)
		if err != nil {
			return err
		}
		s.Libvirt, s.Container = l, "libvirt "+l.Format
		start = l.stream
		if unpackers[l.Format] != nil {
			headOnly, err := s.unpackFrom(l.Format, start, opt)
			if err != nil {
				return fmt.Errorf("libvirt save image: %s from 0x%x on: %w", l.Format, start, err)
			}
			if headOnly {
				return nil
			}
			start = 0
		}
	} else if n < 4 || binary.BigEndian.Uint32(magic[:]) != streamMagic {
		return ErrNotState
	}
	p := newParser(s, start, opt)
	err := p.stream()
	if err != nil {
		return err
	}
	if p.mapped && s.Libvirt == nil {
		s.Container = "mapped-ram"
	}
	if p.mapped && s.Libvirt != nil && s.Libvirt.Format != "sparse" {
		return &sparse.FormatError{Struct: "libvirt save image header", Off: opt.Offset, Field: "format", Value: s.Libvirt.Format, Msg: "and the stream is mapped-ram"}
	}
	return nil
}

// Complete returns nil if the end of the state is known to be there (see Described), otherwise a
// *sparse.FormatError that tells what is known. Streams of machine types from 2.4 on have a
// configuration. They lack a description only if they are cut or suppress-vmdesc was set.
func (s *State) Complete() error {
	if s.Described {
		return nil
	}
	e := &sparse.FormatError{Struct: "machine state", Off: -1, Msg: "no description of the devices ends it: it is cut, or the machine had suppress-vmdesc=on"}
	if s.MachineType == "" {
		e.Msg = "no description of the devices ends it, as with all machine types up to 2.2: it may or may not be cut"
	}
	return e
}

// Block returns the RAM block of that name, or nil if there is none.
func (s *State) Block(name string) *Block {
	for _, b := range s.Blocks {
		if b.Name == name {
			return b
		}
	}
	return nil
}

// Close closes the temporary files; their content cannot be read afterwards. Close must not be
// called while s is in use.
func (s *State) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	for _, f := range []TempFile{s.temp, s.unpack} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// newTemp creates a temporary file; what is its purpose, for errors.
func newTemp(opt Options, what string) (TempFile, error) {
	if opt.Temp == nil {
		return nil, fmt.Errorf("%s needs a temporary file, which is not allowed", what)
	}
	f, err := opt.Temp()
	if err != nil {
		return nil, fmt.Errorf("temporary file for %s: %w", what, err)
	}
	return f, nil
}
