package cbt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"cbt/sparse"
)

// Version is the format version that this package writes.
const Version = 1

const (
	maxStreams   = 4096
	maxNameLen   = 255
	maxPointSize = 200 // bytes of a point, and of a machine or source
)

// Consistency says what the images of a delta have in common.
type Consistency string

const (
	Crash       Consistency = "crash"       // as after a power cut
	Filesystem  Consistency = "filesystem"  // the guest flushed its file systems
	Application Consistency = "application" // the software inside was told
	Full        Consistency = "full"        // with the RAM of the same instant
)

// Header is the first part of a delta: everything but the changes.
type Header struct {
	Version     int         `json:"cbt"`
	Required    []string    `json:"required,omitempty"`
	Consistency Consistency `json:"consistency"`
	Instant     *time.Time  `json:"instant,omitempty"` // UTC
	Machine     string      `json:"machine,omitempty"` // whose images these are; empty: unknown
	Streams     []Stream    `json:"streams"`
}

// Stream is one image inside a delta.
type Stream struct {
	Name string `json:"name"`           // "disk/0", "ram/pc.ram", "vmstate"
	Size int64  `json:"size"`           // bytes, at To
	To   string `json:"to,omitempty"`   // point; empty: a tip
	Full bool   `json:"full,omitempty"` // covers every byte; From is nil
	From *Base  `json:"from,omitempty"`

	Source string `json:"source,omitempty"` // which disk it was read from; empty: unknown
}

// Base is the state that a stream which is not full must be written over.
type Base struct {
	Point string `json:"point,omitempty"` // empty: the image was not frozen
	Size  int64  `json:"size"`            // bytes
}

// growth returns the first byte that the extents must cover because the image grew; Size if they
// need not cover any.
func (s *Stream) growth() int64 {
	switch {
	case s.Full:
		return 0
	case s.From.Size < s.Size:
		return s.From.Size
	}
	return s.Size
}

// UnknownFeatureError names required features that this version of cbt does not know.
type UnknownFeatureError struct{ Names []string }

func (e *UnknownFeatureError) Error() string {
	return fmt.Sprintf("delta needs features that this version of cbt does not have: %q", e.Names)
}

// Validate returns an error if the header breaks a rule of docs/delta-format.md, section 3.
func (h *Header) Validate() error {
	bad := func(field string, v any, msg string) error {
		return &sparse.FormatError{Struct: "delta header", Field: field, Off: int64(len(magicFrame)), Value: v, Msg: msg}
	}
	if h.Version != Version {
		return bad("version", h.Version, fmt.Sprintf("this version of cbt reads version %d", Version))
	}
	if len(h.Required) > 0 {
		return &UnknownFeatureError{h.Required}
	}
	if !slices.Contains([]Consistency{Crash, Filesystem, Application, Full}, h.Consistency) {
		return bad("consistency", string(h.Consistency), "unknown")
	}
	if len(h.Streams) == 0 || len(h.Streams) > maxStreams {
		return bad("streams", len(h.Streams), fmt.Sprintf("must be 1 to %d", maxStreams))
	}
	if !validPoint(h.Machine) {
		return bad("machine", h.Machine, "is no identity")
	}
	seen := make(map[string]bool, len(h.Streams))
	for _, s := range h.Streams {
		if err := checkStreamName(s.Name); err != nil {
			return bad("stream name", s.Name, err.Error())
		}
		if seen[s.Name] {
			return bad("stream name", s.Name, "given twice")
		}
		seen[s.Name] = true
		if s.Size < 0 {
			return bad("size of "+s.Name, s.Size, "negative")
		}
		if s.Full == (s.From != nil) {
			return bad("stream", s.Name, "must be either full or have a from")
		}
		if !validPoint(s.To) {
			return bad("to of "+s.Name, s.To, "is no point")
		}
		if s.From != nil && s.From.Size < 0 {
			return bad("from size of "+s.Name, s.From.Size, "negative")
		}
		if s.From != nil && !validPoint(s.From.Point) {
			return bad("from of "+s.Name, s.From.Point, "is no point")
		}
		if !validPoint(s.Source) {
			return bad("source of "+s.Name, s.Source, "is no identity")
		}
	}
	return nil
}

func checkStreamName(name string) error {
	kind, rest, slash := strings.Cut(name, "/")
	switch {
	case len(name) > maxNameLen:
		return fmt.Errorf("longer than %d bytes", maxNameLen)
	case !utf8.ValidString(name):
		return fmt.Errorf("is not UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("has control characters")
	case name == "vmstate":
		return nil
	case (kind == "disk" || kind == "ram") && slash && rest != "":
		return nil
	}
	return fmt.Errorf("is neither disk/NAME nor ram/BLOCK nor vmstate")
}

// validPoint reports whether p can be a point. The empty string can: it stands for no point.
// Identities of machines and sources follow the same rule.
func validPoint(p string) bool {
	return len(p) <= maxPointSize && !strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (h *Header) appendFrame(b []byte) ([]byte, error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(h); err != nil {
		return nil, err
	}
	text := bytes.TrimSuffix(body.Bytes(), []byte("\n"))
	if len(text) > maxHeaderBody {
		return nil, &sparse.FormatError{Struct: "delta header", Off: int64(len(magicFrame)), Value: len(text), Msg: "too many streams for one delta"}
	}
	return sealFrame(append(beginFrame(b, headerFrame), text...), 0), nil
}
