package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cbt/cbt"
	"cbt/internal/audit"
	"cbt/internal/fail"
	"cbt/internal/imagelock"
	"cbt/internal/infile"
	"cbt/internal/record"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/sparse"
)

// namedTarget is where one stream of a delta goes: a path for the only stream,
// or NAME=PATH.
type namedTarget struct {
	name string // empty: the only stream
	path string
}

// same says whether two targets are one file, there already or not.
func (t namedTarget) same(u namedTarget) bool {
	a, errA := os.Stat(t.path)
	b, errB := os.Stat(u.path)
	if errA == nil && errB == nil {
		return os.SameFile(a, b)
	}
	return filepath.Clean(t.path) == filepath.Clean(u.path)
}

// splitTargets takes the targets off the end of args: all that look like
// NAME=PATH and are no file, or else the last one.
func splitTargets(args []string) (deltas []string, targets []namedTarget, err error) {
	i := len(args)
	for i > 0 {
		name, path, ok := strings.Cut(args[i-1], "=")
		if !ok || name == "" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "/") || infile.Exists(args[i-1]) {
			break
		}
		if path == "" {
			return nil, nil, fail.Usage("%s: no target after the =: is a variable unset?", text.Printable(args[i-1]))
		}
		i--
	}
	if i == len(args) {
		i--
		return args[:i], []namedTarget{{path: args[i]}}, nil
	}
	for _, arg := range args[i:] {
		name, path, _ := strings.Cut(arg, "=")
		targets = append(targets, namedTarget{name, path})
	}
	return args[:i], targets, nil
}

// refuseSources refuses targets that are one of the deltas.
func (o *opener) refuseSources(targets []namedTarget) error {
	for i, t := range targets {
		if slices.ContainsFunc(targets[:i], t.same) {
			return fail.Usage("%s: is named as a target twice", t.path)
		}
		if t.path == stdinName {
			return fail.Usage("the target - is no file (./- is): cbt cat DELTA writes an image to stdout")
		}
		st, err := os.Stat(t.path)
		if err != nil {
			continue // not there, or refused later
		}
		for _, f := range o.everyFile() {
			if delta, err := f.Stat(); err == nil && os.SameFile(delta, st) {
				return fail.Usage("%s: is one of the deltas that are read", t.path)
			}
		}
	}
	return nil
}

// matchTargets gives every target its stream of d.
func matchTargets(d *store.File, targets []namedTarget) ([]int, error) {
	var streams []int
	used := map[int]bool{}
	for _, t := range targets {
		i, err := d.Find(t.name)
		if t.name == "" && err != nil && len(d.Disks()) > 0 {
			err = fail.Usage("%s: has %d streams: say NAME=TARGET for those to write: %s", d.Name, len(d.Header.Streams), d.StreamNames())
		}
		if err != nil {
			return nil, err
		}
		if used[i] {
			return nil, fail.Usage("two targets for %s", text.Printable(d.Header.Streams[i].Name))
		}
		used[i] = true
		streams = append(streams, i)
	}
	return streams, nil
}

// imageTarget is an existing file or device, open for writing and held, so
// that no machine starts on it.
type imageTarget struct {
	sparse.Target
	f       *os.File
	path    string
	record  string // path of its record
	stat    infile.Stat
	audit   *audit.Recorder
	wrote   cbt.ApplyStats
	audited *audit.Target // as the record knows it
}

// openTarget opens an existing target in place. Whatever holds or mounts it
// makes it busy, which no flag overrides.
func openTarget(u *audit.Recorder, path, stateDir string, raw bool) (_ *imageTarget, err error) {
	if err := u.RefuseSelf(path); err != nil {
		return nil, err
	}
	// O_NONBLOCK: a pipe must not keep us waiting before it is refused.
	f, err := os.OpenFile(path, os.O_RDWR|openNonblock, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	mode, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := infile.KindError(path, mode.Mode()); err != nil {
		return nil, err
	}
	if by, err := imagelock.InUse(f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	} else if by != "" {
		return nil, fail.Busy("%s: is in use: %s", path, by)
	}
	if mode.Mode()&os.ModeDevice != 0 {
		// From here on it cannot be mounted either.
		device, err := imagelock.Exclusive(f)
		if errors.Is(err, imagelock.ErrBusy) {
			return nil, fail.Busy("%s: is in use by the kernel or another program", path)
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		f.Close()
		f = device
	}
	if err := imagelock.HoldWrite(f); errors.Is(err, imagelock.ErrBusy) {
		return nil, fail.Busy("%s: is in use: a machine or another cbt holds it", path)
	} else if err != nil && !errors.Is(err, errors.ErrUnsupported) { // no locks there, so QEMU has none either
		return nil, fmt.Errorf("%s: cannot be locked: %w", path, err)
	}
	t := &imageTarget{f: f, path: path, audit: u}
	if t.stat, err = infile.StatOf(f); err != nil {
		return nil, err
	}
	if t.record, err = record.Path(path, t.stat.Block, stateDir); err != nil {
		return nil, err
	}
	if !raw {
		if err := refuseContainer(path, f); err != nil {
			return nil, err
		}
	}
	if t.Target, err = sparse.OpenTarget(f); err != nil {
		return nil, err
	}
	return t, nil
}

// refuseContainer refuses targets that are named like a container format or,
// if f is not nil, hold one: raw bytes over it would destroy it.
func refuseContainer(path string, f *os.File) error {
	if format := containers[strings.ToLower(filepath.Ext(path))]; format != "" {
		way := ""
		if format == formatQcow2 {
			way = "cbt restore --target-format qcow2 writes a qcow2 image, "
		}
		return fail.Usage("%s: is named like a %s, but raw bytes would go there: %s--target-format raw writes them all the same", path, formatName(format), way)
	}
	if f == nil {
		return nil
	}
	st, err := infile.StatOf(f)
	if err != nil {
		return err
	}
	found, err := sniff(f, st.Size)
	if err != nil {
		return err
	}
	if found != formatRaw {
		return fail.Usage("%s: holds a %s, but raw bytes would go there: --target-format raw writes over it", path, found)
	}
	return nil
}

// begin notes, durably, that the target is being written and no longer whole.
func (t *imageTarget) begin(stream string, p *record.Pending) error {
	r := &record.Record{Stream: stream, Size: t.Size(), Pending: p}
	r.Describe(t.f, t.stat)
	if err := r.Write(t.audit, t.record); err != nil {
		return err
	}
	t.audited = &audit.Target{Path: t.path, Stat: t.stat, Size: t.Size, Written: func() (int64, int64) { return t.wrote.Written, t.wrote.Zeroed }}
	t.audit.Begin(t.audited)
	if err := record.MarkIncomplete(t.f); err != nil {
		return fmt.Errorf("%s: marking it incomplete: %w", t.path, err)
	}
	return t.Sync()
}

// finish syncs the target, which is after the last of the layers, and notes where
// it is now.
func (t *imageTarget) finish(ctx context.Context, layers []cbt.Layer) error {
	if err := t.Sync(); err != nil {
		return err
	}
	// It is whole. Taking the mark away changes its ctime, which the record notes.
	if err := record.UnmarkIncomplete(t.f); err != nil {
		return err
	}
	f := &infile.Input{File: t.f, Path: t.path}
	var err error
	if f.Info, err = infile.StatOf(t.f); err != nil {
		return err
	}
	// Once the tick of the last write is over, no later one can hide in it.
	if err := f.Settle(ctx); err != nil {
		return err
	}
	if err := recordOf(layers[len(layers)-1], t.f, f.Info).Write(t.audit, t.record); err != nil {
		return err
	}
	first, last := layers[0], layers[len(layers)-1]
	from := ""
	if f := first.Delta.Header.Streams[first.Stream].From; f != nil {
		from = f.Point
	}
	return t.audit.FinishTarget(t.audited, from, last.Delta.Header.Streams[last.Stream].To, idsOf(layers))
}

// recordOf is the record of a target that holds the state after l.
func recordOf(l cbt.Layer, f *os.File, st infile.Stat) *record.Record {
	s := l.Delta.Header.Streams[l.Stream]
	id := l.Delta.ID()
	r := &record.Record{Stream: s.Name, Point: s.To, Delta: id.String(), Size: s.Size}
	r.Describe(f, st)
	return r
}

// Close releases the target.
func (t *imageTarget) Close() error { return t.f.Close() }

// idsOf are the IDs of the deltas of a chain.
func idsOf(layers []cbt.Layer) []string {
	var ids []string
	for _, l := range layers {
		id := l.Delta.ID()
		ids = append(ids, id.String())
	}
	return ids
}

// elapsed is for summaries.
func elapsed(start time.Time) string { return time.Since(start).Round(time.Millisecond).String() }
