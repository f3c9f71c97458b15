package hostlvm

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// poolLock is the lock of a pool: a file that runs of cbt on this host lock.
// While a run holds the pool's metadata snapshot the file says so; a run that
// was killed leaves that behind, and a reboot takes it away.
type poolLock struct{ f *os.File }

// lockRecord is what the file holds, as JSON.
type lockRecord struct {
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Root    uint64    `json:"root"` // metadata block of the snapshot; 0: it was being taken
}

const (
	lockRecordLen = 127 // bytes; the longest has under 90
	maxLockRecord = 4096
)

// record writes down that this process holds the snapshot at root. Records are
// of one length, so that one write replaces another: a run killed beside it has
// left the one or the other.
func (l *poolLock) record(root uint64) error {
	b, err := json.Marshal(lockRecord{os.Getpid(), time.Now().UTC().Truncate(time.Second), root})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(io.NewOffsetWriter(l.f, 0), "%-*s\n", lockRecordLen, b)
	return err
}

// erase says that nothing is held.
func (l *poolLock) erase() error { return l.f.Truncate(0) }

// left describes the run that left the snapshot at root behind, if the file
// has its record.
func (l *poolLock) left(root uint64) string {
	b, err := io.ReadAll(io.NewSectionReader(l.f, 0, maxLockRecord))
	var r lockRecord
	if err != nil || json.Unmarshal(b, &r) != nil || r.Root != root && r.Root != 0 {
		return ""
	}
	return fmt.Sprintf("a run of cbt (process %d, %s), which was killed,", r.PID, r.Started.Format(time.DateTime+" MST"))
}

// unlock lets the next run in. The file stays: removing it would let two runs
// lock different files of one name.
func (l *poolLock) unlock() { l.f.Close() }
