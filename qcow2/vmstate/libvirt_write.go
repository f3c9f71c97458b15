package vmstate

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"cbt/sparse"
)

// NewLibvirt returns the part of a save image that precedes the stream, for the domain in text, a
// libvirt domain XML. With wasRunning the machine runs on when it is restored.
func NewLibvirt(text string, wasRunning bool) (*Libvirt, error) {
	l := &Libvirt{Format: libvirtFormats[0], XML: text, WasRunning: wasRunning}
	if len(text) >= maxLibvirtData || strings.IndexByte(text, 0) >= 0 {
		return nil, fmt.Errorf("the domain is not a text of less than %d bytes", maxLibvirtData)
	}
	if err := l.parse(); err != nil {
		return nil, fmt.Errorf("the domain: %w", err)
	}
	return l, nil
}

// front returns the header and the texts of a save image whose stream is in the given format.
// Integers are little endian, and there is no spare room for longer texts.
func (l *Libvirt) front(format string) []byte {
	data, cookie := append([]byte(l.XML), 0), 0
	if l.Cookie != "" {
		cookie = len(data)
		data = append(append(data, l.Cookie...), 0)
	}
	running := 0
	if l.WasRunning {
		running = 1
	}
	b := make([]byte, libvirtHeaderSize)
	copy(b, libvirtMagic+"Save")
	for i, v := range []int{libvirtVersion, len(data), running, slices.Index(libvirtFormats, format), cookie} {
		binary.LittleEndian.PutUint32(b[16+4*i:], uint32(v))
	}
	return append(b, data...)
}

// Record returns what has to be kept of the state besides the content of RAM. This is the Skeleton
// and, before it, the header of a libvirt save image if the state comes from one. Open reads it.
func (s *State) Record() sparse.View {
	v := s.Skeleton()
	if s.Libvirt == nil {
		return v
	}
	j := &joined{src: v}
	j.text(s.Libvirt.front(libvirtFormats[0]))
	j.pieces([]piece{{0, v.Size()}})
	return j
}

// WriteLibvirt writes the state as an uncompressed libvirt save image: l, then what WriteStream
// writes.
func (s *State) WriteLibvirt(w io.Writer, l *Libvirt, ram Content) error {
	if _, err := w.Write(l.front(libvirtFormats[0])); err != nil {
		return err
	}
	return s.WriteStream(w, ram)
}
