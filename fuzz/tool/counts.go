package tool

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Counts say what a run went through, so that a generator that stopped making
// some kind of history shows.
type Counts map[string]int

// Add adds those of another run.
func (c Counts) Add(o Counts) {
	for k, n := range o {
		c[k] += n
	}
}

func (c Counts) String() string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(c)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, c[k]))
	}
	return strings.Join(parts, ", ")
}
