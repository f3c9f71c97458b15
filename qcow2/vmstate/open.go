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

// ErrNotState says that a file does not begin like a saved machine state.
var ErrNotState = errors.New("not a QEMU machine state")

// TempFile is a file that nobody else can see: on Unix unlinked, mode 0600.
type TempFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// Options of Open.
type Options struct {
	// Offset is where the state begins in the file, in bytes (file:PATH,offset=N).
	// Offsets inside mapped-ram states count from the beginning of the file.
	Offset int64
	// Temp makes the file that compressed states and pages are unpacked into. A
	// nil Temp refuses such states.
	Temp func() (TempFile, error)
	// HeadOnly reads no more of a compressed state than its head, see State.HeadOnly,
	// and unpacks no pages that are packed one by one: blocks cannot be read then.
	HeadOnly bool
	// MaxRAM limits the memory of the machine, in bytes; 0 is DefaultMaxRAM.
	MaxRAM int64
}

// DefaultMaxRAM is 16 TiB.
const DefaultMaxRAM = 16 << 40

// State is a saved state of a machine. It is safe for concurrent use.
type State struct {
	// Container is how the state is kept: "stream", "mapped-ram", or "libvirt FORMAT".
	Container string
	// MachineType is QEMU's, "pc-i440fx-7.2"; empty if the stream has no configuration.
	MachineType string
	// UUID is the machine's, if the stream has it (validate-uuid).
	UUID string
	// Capabilities are those of the migration that a reader has to know.
	Capabilities []string
	// Version is the version of the stream, always 3.
	Version uint32
	// PageSize is the size of a guest page in bytes.
	PageSize int64
	// Blocks are the RAM blocks, the largest first, then by name.
	Blocks []*Block
	// Devices are the device sections in the order of the stream. Without a
	// description of the devices there are none: see Described.
	Devices []Device
	// Described says that the stream ends with the description of its devices,
	// that all sections fit it, and so that the state is whole. A stream without
	// one is read as far as RAM goes, and nothing tells whether its end is there.
	Described bool
	// HeadOnly says that only the head of a compressed state was read: which blocks
	// there are is known, but nothing of what they hold, of devices, or of an end.
	HeadOnly bool
	// Libvirt is the header of a libvirt save image, nil for others.
	Libvirt *Libvirt

	src       io.ReaderAt // the stream, unpacked if need be
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
	Instance uint32 // tells devices of one name apart
	Version  uint32 // of the section's layout
	Size     int64  // bytes of the payload, without header and footer
}

// Open reads the state in the first size bytes of r: the framing of the stream
// and where each page lies. What follows behind the state is not looked at, if
// the stream describes its devices. r must not change while the state is used.
// What is no state at all is ErrNotState, what is wrong with one a
// *sparse.FormatError; what is not supported is an error that names it.
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

// Complete returns nil if the end of the state is known to be there (see
// Described), else a *sparse.FormatError that says what is known: streams of
// machine types from 2.4 on have a configuration, and lack a description only if
// they are cut or suppress-vmdesc was set.
func (s *State) Complete() error {
	if s.Described {
		return nil
	}
	e := &sparse.FormatError{Struct: "machine state", Off: -1, Msg: "no description of the devices ends it: it is cut, or the machine had suppress-vmdesc=on"}
	if s.MachineType == "" {
		e.Msg = "no description of the devices ends it, as in all of machine types up to 2.2: whether it is cut cannot be told"
	}
	return e
}

// Block is the RAM block of that name, nil if there is none.
func (s *State) Block(name string) *Block {
	for _, b := range s.Blocks {
		if b.Name == name {
			return b
		}
	}
	return nil
}

// Close closes the temporary files. What they hold cannot be read after it. It
// must not be called while s is used.
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

// newTemp makes a temporary file for what.
func newTemp(opt Options, what string) (TempFile, error) {
	if opt.Temp == nil {
		return nil, fmt.Errorf("%s needs a temporary file, and none is allowed", what)
	}
	f, err := opt.Temp()
	if err != nil {
		return nil, fmt.Errorf("temporary file for %s: %w", what, err)
	}
	return f, nil
}
