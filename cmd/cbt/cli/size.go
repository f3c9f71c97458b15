package cli

import (
	"strconv"

	"cbt/internal/text"
)

// sizeValue is a flag that holds a size.
type sizeValue struct {
	n   int64
	set bool
}

func (v *sizeValue) Set(s string) (err error) {
	v.n, err = text.ParseSize(s)
	v.set = err == nil
	return err
}

func (v *sizeValue) String() string {
	if !v.set {
		return ""
	}
	return strconv.FormatInt(v.n, 10)
}

func (v *sizeValue) Type() string { return "SIZE" }
