package tool

import (
	"slices"
	"time"
)

// Median is the middle one of some figures, the higher of two.
func Median[T int64 | float64 | time.Duration](v []T) T {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
