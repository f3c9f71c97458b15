package dm

import (
	"fmt"
	"strconv"
	"strings"
)

// PoolStatus is the status of a thin-pool target (pool_status in the kernel's
// drivers/md/dm-thin.c).
type PoolStatus struct {
	Failed        bool // "Fail" or "Error": nothing else is known
	TransactionID uint64
	MetadataUsed  uint64 // blocks of 4096 bytes
	MetadataTotal uint64
	DataUsed      uint64 // chunks of the pool
	DataTotal     uint64
	HeldRoot      uint64 // metadata block of the metadata snapshot, 0 if there is none
	Mode          string // "rw", "ro", "out_of_data_space"
	NeedsCheck    bool
}

// ParsePoolStatus reads the parameters of a thin-pool's status line.
func ParsePoolStatus(params string) (PoolStatus, error) {
	w := strings.Fields(params)
	if len(w) > 0 && (w[0] == "Fail" || w[0] == "Error") {
		return PoolStatus{Failed: true}, nil
	}
	if len(w) < 5 {
		return PoolStatus{}, fmt.Errorf("thin-pool status %q is too short", params)
	}
	var s PoolStatus
	p := wordParser{what: "thin-pool status", line: params}
	s.TransactionID = p.number(w[0])
	s.MetadataUsed, s.MetadataTotal = p.ratio(w[1])
	s.DataUsed, s.DataTotal = p.ratio(w[2])
	if w[3] != "-" {
		s.HeldRoot = p.number(w[3])
	}
	s.Mode = w[4]
	switch s.Mode {
	case "rw", "ro", "out_of_data_space":
	default:
		p.fail(s.Mode)
	}
	s.NeedsCheck = len(w) > 7 && w[7] == "needs_check" // since Linux 4.2
	if p.err != nil {
		return PoolStatus{}, p.err
	}
	return s, nil
}

// PoolTable is the table line of a thin-pool target.
type PoolTable struct {
	Metadata, Data Number
	ChunkSectors   uint64 // of 512 bytes
}

// ParsePoolTable reads the parameters of a thin-pool's table line.
func ParsePoolTable(params string) (PoolTable, error) {
	w := strings.Fields(params)
	if len(w) < 3 {
		return PoolTable{}, fmt.Errorf("thin-pool table %q is too short", params)
	}
	p := wordParser{what: "thin-pool table", line: params}
	t := PoolTable{p.device(w[0]), p.device(w[1]), p.number(w[2])}
	if p.err != nil {
		return PoolTable{}, p.err
	}
	return t, nil
}

// SnapshotTable is the table line of a snapshot target.
type SnapshotTable struct {
	Origin, COW  Number
	Persistent   bool // the exception store is on disk in the format of LVM's snapshots
	ChunkSectors uint64
}

// ParseSnapshotTable reads the parameters of a snapshot's table line.
func ParseSnapshotTable(params string) (SnapshotTable, error) {
	w := strings.Fields(params)
	if len(w) < 4 {
		return SnapshotTable{}, fmt.Errorf("snapshot table %q is too short", params)
	}
	p := wordParser{what: "snapshot table", line: params}
	t := SnapshotTable{p.device(w[0]), p.device(w[1]), strings.HasPrefix(w[2], "P"), p.number(w[3])}
	if p.err != nil {
		return SnapshotTable{}, p.err
	}
	return t, nil
}

// SnapshotStatus is the status of a snapshot target.
type SnapshotStatus struct {
	// Broken is why there is no content any more: "Invalid", "Overflow",
	// "Merge failed"; empty if all is well.
	Broken                string
	Used, Total, Metadata uint64 // sectors of 512 bytes of the exception store
}

// ParseSnapshotStatus reads the parameters of a snapshot's status line.
func ParseSnapshotStatus(params string) (SnapshotStatus, error) {
	w := strings.Fields(params)
	if len(w) < 2 || !strings.Contains(w[0], "/") {
		if params == "" {
			return SnapshotStatus{}, fmt.Errorf("snapshot status is empty")
		}
		return SnapshotStatus{Broken: params}, nil
	}
	p := wordParser{what: "snapshot status", line: params}
	var s SnapshotStatus
	s.Used, s.Total = p.ratio(w[0])
	s.Metadata = p.number(w[1])
	if p.err != nil {
		return SnapshotStatus{}, p.err
	}
	return s, nil
}

// wordParser keeps the first error.
type wordParser struct {
	what, line string
	err        error
}

func (p *wordParser) fail(word string) {
	if p.err == nil {
		p.err = fmt.Errorf("%s %q: %q not understood", p.what, p.line, word)
	}
}

func (p *wordParser) number(w string) uint64 {
	n, err := strconv.ParseUint(w, 10, 64)
	if err != nil {
		p.fail(w)
	}
	return n
}

func (p *wordParser) ratio(w string) (a, b uint64) {
	l, r, ok := strings.Cut(w, "/")
	if !ok {
		p.fail(w)
		return 0, 0
	}
	return p.number(l), p.number(r)
}

func (p *wordParser) device(w string) Number {
	l, r, ok := strings.Cut(w, ":")
	major, err1 := strconv.ParseUint(l, 10, 32)
	minor, err2 := strconv.ParseUint(r, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		p.fail(w)
	}
	return Number{uint32(major), uint32(minor)}
}
