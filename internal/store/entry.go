package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"cbt/cbt"
	"cbt/internal/audit"
	"cbt/internal/ordered"
	"cbt/internal/report"
	"cbt/internal/text"
)

// Entry is one delta as log shows it.
type Entry struct {
	File        string     `json:"file"` // in the directory
	ID          string     `json:"id,omitempty"`
	Size        int64      `json:"size"`
	Payload     int64      `json:"payload"`
	Instant     *time.Time `json:"instant,omitempty"`
	Consistency string     `json:"consistency,omitempty"`
	Machine     string     `json:"machine,omitempty"` // as its header has it
	Full        bool       `json:"full"`              // all streams are
	Parents     []string   `json:"parents,omitempty"` // files, each of which leads to where this one begins
	Missing     []string   `json:"missing,omitempty"` // streams that no full delta leads to
	Streams     []Stream   `json:"streams,omitempty"`
	Error       string     `json:"error,omitempty"`

	Ends  *cbt.Ends `json:"-"` // nil: it cannot be read
	Below *Entry    `json:"-"` // the parent that it is drawn below; nil: none

	Denied bool `json:"-"` // Error is that this user may not read it
}

// Stream is one stream of an Entry, as its header has it.
type Stream struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	Full bool   `json:"full"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`

	Source string `json:"source,omitempty"`
}

// ReadEntries reads the ends of all deltas. What cannot be read is noted; what was
// there and is no more, as prune may run, is left out.
func ReadEntries(ctx context.Context, u *audit.Recorder, dir string, names []string) (list []*Entry, err error) {
	list = []*Entry{}
	err = ordered.Map(ctx, 2*runtime.GOMAXPROCS(0),
		func(_ context.Context, emit func(string) error) error {
			for _, name := range names {
				if err := emit(name); err != nil {
					return err
				}
			}
			return nil
		},
		func(_ context.Context, name string) (*Entry, error) { return ReadEntry(u, dir, name), nil },
		func(l *Entry) error {
			if l.Error != "" {
				if _, err := os.Lstat(filepath.Join(dir, l.File)); errors.Is(err, fs.ErrNotExist) {
					return nil
				}
			}
			list = append(list, l)
			return nil
		})
	return list, err
}

// ReadEntry reads the ends of the delta at path, which lies below dir. What cannot be read is
// noted in the entry.
func ReadEntry(u *audit.Recorder, dir, path string) *Entry {
	o := NewFiles(&audit.Reading{Audit: u}, report.None{}, nil)
	defer o.Close()
	l := &Entry{File: filepath.Base(path)}
	if rel, err := filepath.Rel(dir, path); err == nil { // dir may be ./b or b//
		l.File = rel
	}
	d, err := o.OpenDelta(path)
	if err != nil {
		l.Error, l.Denied = text.OneLine(err.Error()), errors.Is(err, fs.ErrPermission)
		return l
	}
	l.Ends = d.Ends()
	l.ID, l.Size, l.Payload = l.Ends.ID.String(), d.Size(), d.Payload()
	l.Instant, l.Consistency, l.Full = d.Header.Instant, string(d.Header.Consistency), true
	l.Machine = d.Header.Machine
	for _, s := range d.Header.Streams {
		line := Stream{Name: s.Name, Size: s.Size, Full: s.Full, To: s.To, Source: s.Source}
		if s.From != nil {
			line.From, l.Full = s.From.Point, false
		}
		l.Streams = append(l.Streams, line)
	}
	return l
}
