package cli

import (
	"cbt/cbt"
)

// What commands that write print on stdout with --json once all is synced.

// writtenImages is the result of apply and restore.
type writtenImages struct {
	DryRun    bool            `json:"dry-run,omitempty"` // nothing was written: written and zeroed are at most, same at least
	Targets   []writtenTarget `json:"targets"`
	State     *writtenState   `json:"state,omitempty"`     // with --state
	Written   int64           `json:"written"`             // bytes of data
	Zeroed    int64           `json:"zeroed"`              // bytes
	Same      *int64          `json:"same,omitempty"`      // restore: bytes that were left as they were
	Checked   *int64          `json:"checked,omitempty"`   // apply: bytes whose old content was compared
	Unchecked *int64          `json:"unchecked,omitempty"` // apply: bytes that were written over without that
	Read      int64           `json:"read"`                // bytes, of all files
}

type writtenTarget struct {
	Target string `json:"target"`
	Stream string `json:"stream"`
	Point  string `json:"point,omitempty"` // a tip has none
	Size   int64  `json:"size"`
	Delta  string `json:"delta"`  // ID of the last one
	Deltas int    `json:"deltas"` // how many the image was made of
}

type writtenState struct {
	File string `json:"file"`
	Size int64  `json:"size"`
}

// writtenFiles is the result of a command that writes one file or several into a
// directory.
type writtenFiles struct {
	File  string `json:"file"`
	Files int    `json:"files"`
	Bytes int64  `json:"bytes"`
}

// mountedAt is the result of mount and umount.
type mountedAt struct {
	Directory string `json:"directory"`
	Mounted   bool   `json:"mounted"`
}

// released is the result of lvm release-metadata-snap.
type released struct {
	Pool     string  `json:"pool"`
	Released bool    `json:"released"`
	Block    *uint64 `json:"block,omitempty"`
}

// result prints v with --json, and nothing without.
func (a *app) result(v any) error {
	if !a.json {
		return nil
	}
	return writeJSON(a.Stdout, v)
}

// wroteTarget describes the target at path after the last of the layers.
func wroteTarget(path string, layers []cbt.Layer) writtenTarget {
	l := layers[len(layers)-1]
	s, id := l.Delta.Header.Streams[l.Stream], l.Delta.ID()
	return writtenTarget{Target: path, Stream: s.Name, Point: s.To, Size: s.Size, Delta: id.String(), Deltas: len(layers)}
}
