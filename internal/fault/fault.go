// Package fault says how bad a finding of a check is.
package fault

import "fmt"

// Kind is how bad a fault is. The zero Kind is none.
type Kind uint8

const (
	// Corruption is metadata that contradict themselves or the format.
	Corruption Kind = iota + 1
	// Leak is space that is counted as used and is not: nothing is lost.
	Leak
	// Note is something that a reader should know and that is no fault.
	Note
)

func (k Kind) String() string {
	switch k {
	case Corruption:
		return "corruption"
	case Leak:
		return "leak"
	case Note:
		return "note"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// MarshalText makes the kind its name in JSON.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
