package cli

import (
	"fmt"
	"strconv"
)

// wholeValue is a flag that takes a whole number that is not negative.
type wholeValue struct {
	n    *int
	most int    // 0: any
	zero string // what 0 means
}

func (v *wholeValue) Set(s string) error {
	n, err := strconv.Atoi(s)
	switch {
	case err != nil && v.most == 0, n < 0 && v.most == 0:
		return fmt.Errorf("must be a whole number from 1 (0: %s)", v.zero)
	case err != nil, n < 0, v.most > 0 && n > v.most:
		return fmt.Errorf("must be a whole number from 1 to %d (0: %s)", v.most, v.zero)
	}
	*v.n = n
	return nil
}

func (v *wholeValue) String() string {
	if v.n == nil {
		return "0"
	}
	return strconv.Itoa(*v.n)
}
func (v *wholeValue) Type() string { return "N" }

// maxWorkers is the most that --workers takes.
const maxWorkers = 64

func workersValue(n *int) *wholeValue {
	return &wholeValue{n, maxWorkers, "one per processor, at most 16"}
}
