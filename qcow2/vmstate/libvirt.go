package vmstate

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

const (
	libvirtMagic      = "LibvirtQemud" // then Save or Part
	libvirtHeaderSize = 92
	libvirtVersion    = 2
	maxLibvirtData    = 4 << 20 // libvirt writes some 50 KiB
)

// libvirtFormats are the values of virQEMUSaveFormat.
var libvirtFormats = []string{"raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"}

// Libvirt is what precedes the stream in a libvirt save image.
type Libvirt struct {
	Format     string // raw, gzip, bzip2, xz, lzop, zstd, sparse
	WasRunning bool   // the machine was running, and will run on when it is restored
	Name       string // of the domain
	UUID       string // of the domain
	XML        string // of the domain
	Cookie     string // libvirt's own; empty if there is none

	stream int64 // offset of the stream
}

// readLibvirt reads the header of a save image (virQEMUSaveHeader) and the two texts after it, each
// ending with a NUL:
//
//	0 magic (16)  16 version  20 data_len  24 was_running  28 format
//	32 cookieOffset  36 unused (56)
func readLibvirt(r io.ReaderAt, start, size int64) (*Libvirt, error) {
	b, err := binfmt.Read(r, size, "libvirt save image header", uint64(start), libvirtHeaderSize, libvirtHeaderSize)
	if err != nil {
		return nil, err
	}
	fault := func(field string, at int64, value any, msg string) error {
		return &sparse.FormatError{Struct: "libvirt save image header", Field: field, Off: start + at, Value: value, Msg: msg}
	}
	switch tail := string(b[12:16]); tail {
	case "Save":
	case "Part":
		return nil, fault("magic", 0, string(b[:16]), "the image is incomplete: libvirt has not finished it")
	default:
		return nil, fault("magic", 0, b[:16], "neither LibvirtQemudSave nor LibvirtQemudPart")
	}
	var order binary.ByteOrder = binary.LittleEndian
	if order.Uint32(b[16:]) > libvirtVersion {
		order = binary.BigEndian
	}
	dataLen, format, cookie := order.Uint32(b[20:]), order.Uint32(b[28:]), order.Uint32(b[32:])
	switch version := order.Uint32(b[16:]); {
	case version != libvirtVersion:
		return nil, fault("version", 16, version, "only version 2 is known")
	case dataLen > maxLibvirtData:
		return nil, fault("data_len", 20, dataLen, fmt.Sprintf("more than %d bytes", maxLibvirtData))
	case int(format) >= len(libvirtFormats):
		return nil, fault("format", 28, format, "unknown")
	case cookie >= dataLen && cookie != 0:
		return nil, fault("cookieOffset", 32, cookie, fmt.Sprintf("not inside the %d bytes after the header", dataLen))
	}
	l := &Libvirt{Format: libvirtFormats[format], WasRunning: order.Uint32(b[24:]) != 0}
	l.stream = start + libvirtHeaderSize + int64(dataLen)
	data, err := binfmt.Read(r, size, "libvirt save image: domain", uint64(start+libvirtHeaderSize), uint64(dataLen), maxLibvirtData)
	if err != nil {
		return nil, err
	}
	text := data
	if cookie != 0 {
		text = data[:cookie]
		if l.Cookie, err = terminated(data[cookie:], "cookie", start+libvirtHeaderSize+int64(cookie)); err != nil {
			return nil, err
		}
	}
	if l.XML, err = terminated(text, "domain", start+libvirtHeaderSize); err != nil {
		return nil, err
	}
	if err := l.parse(); err != nil {
		return nil, &sparse.FormatError{Struct: "libvirt save image: domain", Off: start + libvirtHeaderSize, Err: err}
	}
	return l, nil
}

func terminated(b []byte, what string, off int64) (string, error) {
	n := bytes.IndexByte(b, 0)
	if n < 0 {
		return "", &sparse.FormatError{Struct: "libvirt save image: " + what, Off: off, Msg: "no NUL at its end"}
	}
	return string(b[:n]), nil
}

// parse finds the domain's name and UUID in its XML. They are children of the outermost element.
func (l *Libvirt) parse() error {
	d := xml.NewDecoder(strings.NewReader(l.XML))
	var inside *string
	for depth := 0; l.Name == "" || l.UUID == ""; {
		token, err := d.Token()
		if err == io.EOF && depth == 0 && l.Name != "" {
			return nil
		}
		if err != nil {
			return err
		}
		switch token := token.(type) {
		case xml.StartElement:
			depth++
			switch {
			case depth == 1 && token.Name.Local != "domain":
				return fmt.Errorf("element %q in place of domain", token.Name.Local)
			case depth > maxDepth:
				return fmt.Errorf("elements nested more than %d deep", maxDepth)
			case depth == 2 && token.Name.Local == "name":
				inside = &l.Name
			case depth == 2 && token.Name.Local == "uuid":
				inside = &l.UUID
			}
		case xml.EndElement:
			depth--
			inside = nil
		case xml.CharData:
			if inside != nil {
				*inside = strings.TrimSpace(string(token))
			}
		}
	}
	return nil
}
