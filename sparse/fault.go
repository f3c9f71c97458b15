package sparse

import "fmt"

// FaultKind says how bad a finding of a check is. The zero FaultKind is not a finding.
type FaultKind uint8

const (
	// Corruption is metadata that contradicts itself or the format.
	Corruption FaultKind = iota + 1
	// Leak is space that counts as used but is not. Nothing is lost.
	Leak
	// Note is something that a reader should know but that is not a fault.
	Note
)

func (k FaultKind) String() string {
	switch k {
	case Corruption:
		return "corruption"
	case Leak:
		return "leak"
	case Note:
		return "note"
	}
	return fmt.Sprintf("FaultKind(%d)", uint8(k))
}

// MarshalText writes the kind as its name, for JSON.
func (k FaultKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
