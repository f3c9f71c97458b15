package store

import (
	"errors"
	"os"
	"sync"

	"cbt/cbt"
	"cbt/internal/audit"
	"cbt/internal/infile"
	"cbt/internal/report"
)

// Files are the deltas that a run has open, and the directories that it has
// locked for them. Deltas may be opened by one goroutine at a time; what is open
// is safe for concurrent use.
type Files struct {
	report.Reporter
	Reads *audit.Reading

	// explain says what a path names that is no delta: f, or, if that is nil,
	// what could not be opened because of err. It returns nil if f may be a damaged one.
	explain func(path string, f *infile.Input, err error) error

	Inputs   []*infile.Input
	looking  sync.Mutex            // held while a directory is looked through
	dirs     map[string]*directory // directories that were
	mu       sync.Mutex            // of files and passed: a damaged one may be found at any time
	files    map[*cbt.Ends]*File
	passed   map[string]bool     // damaged deltas that were passed over, by their names
	Given    *cbt.Routes         // in place of what is found in dirs
	Resolved map[string]string   // DIR@WANT, and which delta that is
	locked   map[string]*os.File // directories of deltas, by their real path
}

// NewFiles returns an empty one. explain may be nil where all files are called .cbt.
func NewFiles(reads *audit.Reading, report report.Reporter, explain func(reads *audit.Reading, path string, f *infile.Input, err error) error) *Files {
	o := &Files{Reporter: report, Reads: reads, explain: func(_ string, _ *infile.Input, err error) error { return err }}
	if explain != nil {
		o.explain = func(path string, f *infile.Input, err error) error { return explain(reads, path, f, err) }
	}
	return o
}

// Close closes all deltas and releases the locks on their directories.
func (o *Files) Close() error {
	if o == nil {
		return nil
	}
	var err error
	for _, f := range o.Inputs {
		err = errors.Join(err, f.Close())
	}
	for _, f := range o.locked {
		err = errors.Join(err, f.Close())
	}
	o.Inputs, o.locked = nil, nil
	return err
}
