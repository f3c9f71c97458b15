package cow

import (
	"cmp"
	"fmt"
	"slices"
	"sort"

	"cbt/sparse"
)

// A run is up to maxRun records whose chunks follow one another in the origin and in the store. As
// in the kernel (dm_consecutive_chunk_count), the top 8 bits of place count the records after the
// first. The other bits are the first one's chunk in the store.
type run struct{ old, place uint64 }

const (
	runSize   = 16 // in bytes
	firstLook = 1 << 16
	maxRun    = 1 << 8
	placeBits = 56
)

func (r run) n() uint64   { return r.place>>placeBits + 1 }
func (r run) new() uint64 { return r.place & (1<<placeBits - 1) }
func (r run) end() uint64 { return r.old + r.n() } // first chunk of the origin after the run

// table holds the runs of a store, in the order of the store while it grows, and by old chunk once
// it is sorted.
type table []run

// add appends a valid record.
func (t *table) add(e exception) {
	if i := len(*t) - 1; i >= 0 {
		last := &(*t)[i]
		if n := last.n(); n < maxRun && last.end() == e.old && last.new()+n == e.new {
			last.place += 1 << placeBits
			return
		}
	}
	*t = append(*t, run{e.old, e.new})
}

// sortNew puts the runs into the order of the store, and refuses chunks of the store that are named
// twice.
func (t table) sortNew() error {
	slices.SortFunc(t, func(a, b run) int { return cmp.Compare(a.new(), b.new()) })
	for i := 1; i < len(t); i++ {
		if t[i].new() < t[i-1].new()+t[i-1].n() {
			return twice("new_chunk", t[i].new())
		}
	}
	return nil
}

// sort puts the runs into the order of the origin, joins what it can, and refuses chunks that are
// named twice.
func (t *table) sort() error {
	if err := t.sortNew(); err != nil {
		return err
	}
	s := *t
	slices.SortFunc(s, func(a, b run) int { return cmp.Compare(a.old, b.old) })
	joined := s[:0]
	for i, r := range s {
		if i > 0 {
			last := &joined[len(joined)-1]
			if r.old < last.end() {
				return twice("old_chunk", r.old)
			}
			if n := last.n() + r.n(); n <= maxRun && last.end() == r.old && last.new()+last.n() == r.new() {
				last.place += r.n() << placeBits
				continue
			}
		}
		joined = append(joined, r)
	}
	*t = joined
	return nil
}

func twice(field string, chunk uint64) error {
	return &sparse.FormatError{Struct: "exception table", Off: -1, Field: field, Value: chunk, Msg: "two records have it"}
}

// from returns the index of the first run that ends after an origin chunk.
func (t table) from(chunk uint64) int {
	return sort.Search(len(t), func(i int) bool { return t[i].end() > chunk })
}

// tooLong returns the error for a table past a limit of memory, in bytes.
func tooLong(at, limit int64) error {
	return &sparse.FormatError{Struct: "exception table", Off: at, Msg: fmt.Sprintf("takes more than %d bytes of memory", limit)}
}
