package cli

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

	"cbt/internal/fail"
)

// record is what apply and restore keep beside a target, as TARGET.cbt-state:
// the point that it is at, what it looked like then, and the work in progress
// if there is any. It holds no path and no name, and is private like the
// target.
type record struct {
	Version int       `json:"cbt-state"`
	Stream  string    `json:"stream"`
	Point   string    `json:"point,omitempty"`  // empty: a tip, or not there yet
	Delta   string    `json:"delta,omitempty"`  // ID of the delta that led there
	Size    int64     `json:"size"`             // bytes of the image
	File    string    `json:"file"`             // identity of the target
	Mtime   time.Time `json:"mtime,omitzero"`   // of a file
	Ctime   time.Time `json:"ctime,omitzero"`   // of a file; earlier versions did not note it
	Writes  string    `json:"writes,omitempty"` // of a device: what was ever written to it
	Pending *pending  `json:"pending,omitempty"`
}

// pending is work that was begun. Until it is done the target is at no point.
type pending struct {
	Command string   `json:"command"` // "apply" or "restore"
	From    string   `json:"from,omitempty"`
	To      string   `json:"to,omitempty"`
	Deltas  []string `json:"deltas"` // IDs, oldest first
}

const (
	recordVersion = 1
	recordSuffix  = ".cbt-state"
	recordLimit   = 1 << 20
)

// recordPath is where the record of an existing target lies: beside the file
// itself, not beside a link to it. Devices have none there: /dev is gone after
// a reboot.
func recordPath(target string, block bool, stateDir string) (string, error) {
	if block && stateDir == "" {
		return "", fail.Usage("%s: is a device: --state-dir DIR says where the record of its state is kept", target)
	}
	real, err := filepath.EvalSymlinks(target)
	if err != nil {
		return "", err
	}
	if !block {
		return real + recordSuffix, nil
	}
	if real, err = filepath.Abs(real); err != nil {
		return "", err
	}
	// One name for each path: "/" becomes "-", and what is "-" is escaped.
	name := strings.NewReplacer("%", "%25", "-", "%2D", "/", "-").Replace(strings.Trim(real, "/"))
	return filepath.Join(stateDir, name+recordSuffix), nil
}

// readRecord returns nil if there is no record. One that cannot be understood
// is an error: it may say that the target is incomplete.
func readRecord(u *audit, path string) (*record, error) {
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
	text, err := u.readFile("state record", path, recordLimit)
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: is no record of a target's state: %w", path, err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("%s: has version %d, this version of cbt reads %d", path, r.Version, recordVersion)
	}
	return &r, nil
}

func (r *record) write(u *audit, path string) error {
	r.Version = recordVersion
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := u.writeFile("state record", path, append(text, '\n')); err != nil {
		return fmt.Errorf("writing the record of the target's state: %w", err)
	}
	return nil
}

// describe notes what the target looks like now.
func (r *record) describe(f *os.File, st fileStat) {
	if st.block {
		r.File, r.Writes = deviceState(f, st)
		return
	}
	sum := sha256.Sum256(st.appendIdentity(nil))
	r.File, r.Mtime, r.Ctime = hex.EncodeToString(sum[:]), st.mtime, st.ctime
}

// fit says how far a record is about a target as it is now.
type fit int

const (
	fitsNot   fit = iota // another file, or one that was written to
	fitsMaybe            // all but the ctime says so: bytes have to tell
	fits
)

// fit looks at the target. While that is being written it is at no definite
// time, and counts as the same. Where only the ctime is another one, or was not
// noted, the target may have got another mode or name, or have been written to
// and its mtime put back.
func (r *record) fit(f *os.File, st fileStat) fit {
	var now record
	now.describe(f, st)
	switch {
	case r == nil || r.File != now.File || r.File == "":
		return fitsNot
	case r.Pending != nil:
		return fits
	case st.block:
		if sectors(r.Writes) == sectors(now.Writes) && st.size >= r.Size {
			return fits
		}
		return fitsNot
	case !r.Mtime.Equal(now.Mtime) || r.Size != st.size:
		return fitsNot
	case !r.Ctime.Equal(now.Ctime):
		return fitsMaybe
	}
	return fits
}

// sectors leaves out of a record's Writes the numbers of requests: on some
// devices a flush counts as one. What writes or discards has sectors.
func sectors(writes string) string {
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

func (r *record) incomplete(target string) error {
	return fail.WrongBase("%s: is %w: its %s was interrupted; run the same command again to complete it", target, errIncomplete, r.Pending.Command)
}

// continues says that p is the work that was begun.
func (p *pending) continues(q *pending) bool {
	return p != nil && p.Command == q.Command && p.To == q.To && slices.Equal(p.Deltas, q.Deltas)
}

// errIncompleteElsewhere is for a target whose record is not beside it.
func errIncompleteElsewhere(target string) error {
	return fail.WrongBase("%s: is %w: writing it was interrupted, and no record tells by which command; cbt restore --in-place makes it whole", target, errIncomplete)
}

// wholeRecord is the record of the raw file or device f, which is at path, and
// how far it fits. It is an error if f is incomplete.
func wholeRecord(u *audit, f *os.File, path, stateDir string) (*record, fit, error) {
	st, err := statFile(f)
	if err != nil || st.block && stateDir == "" {
		return nil, fitsNot, err
	}
	where, err := recordPath(path, st.block, stateDir)
	if err != nil {
		return nil, fitsNot, err
	}
	r, err := readRecord(u, where)
	if err != nil {
		return nil, fitsNot, err
	}
	how := r.fit(f, st)
	switch {
	case how == fits && r.Pending != nil:
		return nil, fitsNot, r.incomplete(path)
	case how == fits:
		return r, how, nil
	case isMarkedIncomplete(f), r != nil && r.Pending != nil && st.block:
		return nil, fitsNot, errIncompleteElsewhere(path)
	}
	return r, how, nil
}
