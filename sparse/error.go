package sparse

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrUnrelated says that the metadata of two images tell nothing about what changed between
	// them, so only a comparison of their bytes does. The Changed functions of all formats return
	// errors that wrap it.
	ErrUnrelated = errors.New("no common metadata")

	// ErrChanged says that something is no longer what it was when it was opened, so what was read
	// from it must not be used. The Recheck methods of all formats return errors that wrap it.
	ErrChanged = errors.New("changed while it was read")
)

// FormatError says that bytes of an image, a volume or a delta break their format. It names the
// structure, the field, the byte offset in the file that holds the structure, and the value. Every
// parser returns this type for bad input, so that one errors.As tells damage from a failing disk.
type FormatError struct {
	Struct string // "qcow2 header", "L2 table", "delta trailer"
	Field  string // "cluster_bits"; empty if the whole structure is meant
	Off    int64  // byte offset of the structure or entry; negative if unknown
	Value  any    // the offending value; nil if there is none
	Msg    string // what is wrong with it: "not cluster aligned"
	Err    error  // cause, may be nil
}

// Error returns one line: structure, offset, field, value, reason.
func (e *FormatError) Error() string {
	var b strings.Builder
	b.WriteString(e.Struct)
	if e.Off >= 0 {
		fmt.Fprintf(&b, " at 0x%x", e.Off)
	}
	if e.Field != "" {
		b.WriteString(": " + e.Field)
		if e.Value != nil {
			b.WriteString(" " + formatValue(e.Value))
		}
	} else if e.Value != nil {
		b.WriteString(": " + formatValue(e.Value))
	}
	if e.Msg != "" {
		b.WriteString(": " + e.Msg)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

func (e *FormatError) Unwrap() error { return e.Err }

// formatValue prints unsigned integers in hex, as the formats' own documents
// do, and quotes text, which comes from the file and may hold anything.
func formatValue(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case []byte:
		return fmt.Sprintf("%q", v)
	case uint, uint8, uint16, uint32, uint64:
		return fmt.Sprintf("%#x", v)
	}
	return fmt.Sprint(v)
}
