package store

import "strings"

// WithoutTimes is the first part of a point.
func WithoutTimes(p string) string {
	p, _, _ = strings.Cut(p, "+")
	return p
}

// MayBe says that two points are the same but for ctimes: only bytes can tell
// whether they are of one state.
func MayBe(p, q string) bool {
	return p != q && p != "" && WithoutTimes(p) == WithoutTimes(q)
}
