package sparse

import "fmt"

// FaultKind says how bad a finding of a check is. The zero FaultKind is none.
type FaultKind uint8

const (
	// Corruption is metadata that contradict themselves or the format.
	Corruption FaultKind = iota + 1
	// Leak is space that is counted as used and is not: nothing is lost.
	Leak
	// Note is something that a reader should know and that is no fault.
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

// MarshalText makes the kind its name in JSON.
func (k FaultKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
