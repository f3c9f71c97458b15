// Package record keeps what lies beside a restored image: which point it is at, what
// it looked like then, and work on it that was begun. docs/points.md has the bytes.
package record

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cbt/internal/audit"
	"cbt/internal/fail"
	"cbt/internal/infile"
)

// Record is what apply and restore keep beside a target, as TARGET.cbt-state:
// the point that it is at, what it looked like then, and the work in progress
// if there is any. It holds no path and no name, and is private like the
// target.
type Record struct {
	Version int       `json:"cbt-state"`
	Stream  string    `json:"stream"`
	Point   string    `json:"point,omitempty"`  // empty: a tip, or not there yet
	Delta   string    `json:"delta,omitempty"`  // ID of the delta that led there
	Size    int64     `json:"size"`             // bytes of the image
	File    string    `json:"file"`             // identity of the target
	Mtime   time.Time `json:"mtime,omitzero"`   // of a file
	Ctime   time.Time `json:"ctime,omitzero"`   // of a file; earlier versions did not note it
	Writes  string    `json:"writes,omitempty"` // of a device: what was ever written to it
	Pending *Pending  `json:"pending,omitempty"`
}

// Pending is work that was begun. Until it is done the target is at no point.
type Pending struct {
	Command string   `json:"command"` // "apply" or "restore"
	From    string   `json:"from,omitempty"`
	To      string   `json:"to,omitempty"`
	Deltas  []string `json:"deltas"` // IDs, oldest first
}

const (
	version = 1
	Suffix  = ".cbt-state"
	limit   = 1 << 20
)

// Path is where the record of an existing target lies: beside the file
// itself, not beside a link to it. Devices have none there: /dev is gone after
// a reboot.
func Path(target string, block bool, stateDir string) (string, error) {
	if block && stateDir == "" {
		return "", fail.Usage("%s: is a device: --state-dir DIR says where the record of its state is kept", target)
	}
	real, err := filepath.EvalSymlinks(target)
	if err != nil {
		return "", err
	}
	if !block {
		return real + Suffix, nil
	}
	if real, err = filepath.Abs(real); err != nil {
		return "", err
	}
	// One name for each path: "/" becomes "-", and what is "-" is escaped.
	name := strings.NewReplacer("%", "%25", "-", "%2D", "/", "-").Replace(strings.Trim(real, "/"))
	return filepath.Join(stateDir, name+Suffix), nil
}

// Read returns nil if there is no record. One that cannot be understood
// is an error: it may say that the target is incomplete.
func Read(u *audit.Recorder, path string) (*Record, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is no record of a target's state", path)
	}
	text, err := u.ReadFile("state record", path, limit)
	if err != nil {
		return nil, err
	}
	var r Record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: is no record of a target's state: %w", path, err)
	}
	if r.Version != version {
		return nil, fmt.Errorf("%s: has version %d, this version of cbt reads %d", path, r.Version, version)
	}
	return &r, nil
}

func (r *Record) Write(u *audit.Recorder, path string) error {
	r.Version = version
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := u.WriteFile("state record", path, append(text, '\n')); err != nil {
		return fmt.Errorf("writing the record of the target's state: %w", err)
	}
	return nil
}

// Describe notes what the target looks like now.
func (r *Record) Describe(f *os.File, st infile.Stat) {
	if st.Block {
		r.File, r.Writes = DeviceState(f, st)
		return
	}
	sum := sha256.Sum256(st.AppendIdentity(nil))
	r.File, r.Mtime, r.Ctime = hex.EncodeToString(sum[:]), st.Mtime, st.Ctime
}

// fit says how far a record is about a target as it is now.
type fit int

const (
	FitsNot   fit = iota // another file, or one that was written to
	FitsMaybe            // all but the ctime says so: bytes have to tell
	Fits
)

// Fit looks at the target. While that is being written it is at no definite
// time, and counts as the same. Where only the ctime is another one, or was not
// noted, the target may have got another mode or name, or have been written to
// and its mtime put back.
func (r *Record) Fit(f *os.File, st infile.Stat) fit {
	var now Record
	now.Describe(f, st)
	switch {
	case r == nil || r.File != now.File || r.File == "":
		return FitsNot
	case r.Pending != nil:
		return Fits
	case st.Block:
		if Sectors(r.Writes) == Sectors(now.Writes) && st.Size >= r.Size {
			return Fits
		}
		return FitsNot
	case !r.Mtime.Equal(now.Mtime) || r.Size != st.Size:
		return FitsNot
	case !r.Ctime.Equal(now.Ctime):
		return FitsMaybe
	}
	return Fits
}

// Sectors leaves out of a record's Writes the numbers of requests: on some
// devices a flush counts as one. What writes or discards has sectors.
func Sectors(writes string) string {
	var kept []string
	for device := range strings.SplitSeq(writes, ";") {
		if n := strings.Fields(device); len(n) == 4 {
			kept = append(kept, n[1], n[3], ";")
		}
	}
	return strings.Join(kept, " ")
}

// errIncomplete says that a target was left half written.
var errIncomplete = errors.New("incomplete")

func (r *Record) Incomplete(target string) error {
	return fail.WrongBase("%s: is %w: its %s was interrupted; run the same command again to complete it", target, errIncomplete, r.Pending.Command)
}

// Continues says that p is the work that was begun.
func (p *Pending) Continues(q *Pending) bool {
	return p != nil && p.Command == q.Command && p.To == q.To && slices.Equal(p.Deltas, q.Deltas)
}

// ErrIncompleteElsewhere is for a target whose record is not beside it.
func ErrIncompleteElsewhere(target string) error {
	return fail.WrongBase("%s: is %w: writing it was interrupted, and no record tells by which command; cbt restore --in-place makes it whole", target, errIncomplete)
}

// WholeRecord is the record of the raw file or device f, which is at path, and
// how far it fits. It is an error if f is incomplete.
func WholeRecord(u *audit.Recorder, f *os.File, path, stateDir string) (*Record, fit, error) {
	st, err := infile.StatOf(f)
	if err != nil || st.Block && stateDir == "" {
		return nil, FitsNot, err
	}
	where, err := Path(path, st.Block, stateDir)
	if err != nil {
		return nil, FitsNot, err
	}
	r, err := Read(u, where)
	if err != nil {
		return nil, FitsNot, err
	}
	how := r.Fit(f, st)
	switch {
	case how == Fits && r.Pending != nil:
		return nil, FitsNot, r.Incomplete(path)
	case how == Fits:
		return r, how, nil
	case IsMarkedIncomplete(f), r != nil && r.Pending != nil && st.Block:
		return nil, FitsNot, ErrIncompleteElsewhere(path)
	}
	return r, how, nil
}
