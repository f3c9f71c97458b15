package cli

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cbt/internal/fail"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/qcow2"
)

// mayHaveStateElsewhere says whether a snapshot was taken of a machine that had
// run, and its file has no RAM of it. savevm gives all disks of a machine such a
// snapshot but the one that it puts the state into; snapshots of the disks alone
// look the same.
func mayHaveStateElsewhere(s *qcow2.Snapshot) bool {
	return s.VMClock > 0 && s.VMStateSize == 0
}

// snapshotOf is the internal snapshot that a source is, nil if it is none.
func snapshotOf(s *source) *qcow2.Snapshot {
	if view, _ := s.View.(*qcow2.View); view != nil {
		return view.Snapshot()
	}
	return nil
}

// warnOfRAM warns if disks are backed up of a machine that ran, and neither they
// nor flags say where its RAM is. It costs a look into the directory of the first one.
func (a *app) warnOfRAM(o *opener, disks []disk, opt *diffOptions) {
	if opt.ram == ramNo || opt.newState != "" {
		return
	}
	var first *source
	for _, d := range disks {
		snap := snapshotOf(d.img)
		switch {
		case snap == nil:
		case snap.VMStateSize > 0:
			return
		case mayHaveStateElsewhere(snap) && first == nil:
			first = d.img
		}
	}
	if first == nil {
		return
	}
	str := first.Ref + ": the machine had run when this was taken, and its RAM is not in this file, so it is left out."
	if found := o.stateBeside(first); found != "" {
		a.Warnf("%s It is in %s: --new-state %s takes it along", str, text.Printable(found), text.Quote(found))
		return
	}
	a.Warnf("%s If it was saved (savevm), it is in another disk of the machine, often that of the UEFI variables (virsh dumpxml names it as nvram): "+
		"--new-state FILE@%s takes it along; if not, --ram no says so", str, text.Quote(snapshotOf(first).Name))
}

// maxBeside is how many files are looked at beside an image.
const maxBeside = 256

// stateBeside looks for the state of a snapshot in the other images of the
// directory of its image: savevm gives all disks the same name and clock. It
// returns a reference, or nothing.
func (o *opener) stateBeside(s *source) string {
	want := snapshotOf(s)
	dir := filepath.Dir(s.Path)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries[:min(len(entries), maxBeside)] {
		path := filepath.Join(dir, e.Name())
		if !strings.Contains(s.Path, string(filepath.Separator)) {
			path = e.Name()
		}
		if e.Type().IsRegular() && o.hasState(path, want) {
			return path + "@" + want.Name
		}
	}
	return ""
}

// hasState says whether path is an image with a snapshot of this name and clock
// that has a state.
func (o *opener) hasState(path string, want *qcow2.Snapshot) bool {
	for _, s := range o.snapshotsIn(path) {
		if s.Name == want.Name && s.VMClock == want.VMClock && s.VMStateSize > 0 {
			return true
		}
	}
	return false
}

// sameClock refuses RAM of another instant than that of the disks, if snapshots
// tell: all that savevm makes at once have one clock.
func (m *machine) sameClock(disks []disk, force bool) error {
	if m.clock == 0 || force {
		return nil
	}
	for _, d := range disks {
		if snap := snapshotOf(d.img); snap != nil && snap.VMClock > 0 && snap.VMClock != m.clock {
			return fail.Usage("--new-state: %s was saved when the machine had run for %s, and %s for %s: the RAM of another instant (--force takes it all the same)",
				text.Printable(m.ref), formatClock(m.clock), text.Printable(d.img.Ref), formatClock(snap.VMClock))
		}
	}
	return nil
}

// stateOfBase names a delta that leads to what a disk is compared with, and has
// RAM, for NEW's to be compared with. It is empty if there is none, or OLD brings its own.
func (b *backupRun) stateOfBase() string {
	for _, d := range b.disks {
		if d.old == nil || d.old.Point == "" {
			continue
		}
		if snap := snapshotOf(d.old); snap != nil && snap.VMStateSize > 0 || d.old.chain != nil {
			return ""
		}
		var best *store.Entry
		for _, l := range b.store.Ends[store.Point{Stream: d.stream(), Point: d.old.Point}] {
			if l.Has(store.StateStream) && !slices.Contains(l.Missing, store.StateStream) && (best == nil || b.store.Length(l, store.StateStream) < b.store.Length(best, store.StateStream)) {
				best = l
			}
		}
		if best != nil {
			return filepath.Join(b.store.Dir, best.File)
		}
	}
	return ""
}

// openNewState opens what --new-state names, to know at which point it is. Where
// its pages are is read with what they are compared with.
func (b *backupRun) openNewState(ctx context.Context) error {
	opt := &b.opt.diff
	if opt.newState == "" {
		return nil
	}
	for _, d := range b.disks {
		if snap := snapshotOf(d.img); snap != nil && snap.VMStateSize > 0 {
			return stateTwice(d.img)
		}
	}
	var err error
	b.opener.together = true
	opt.newMachine, err = b.opener.openMachine(ctx, opt.newState, opt.newStateRef)
	b.opener.together = false
	if err != nil {
		return err
	}
	return opt.newMachine.freeze(ctx, opt.source.Frozen)
}

// stateTwice is the error of a --new-state that goes with what has a state.
func stateTwice(img *source) error {
	return fail.Usage("--new-state: %s has RAM of its own, of the same instant", img.Ref)
}

// stateEnds are the points of the machine state that --new-state names.
func (b *backupRun) stateEnds() (ends []store.Point, frozen bool) {
	m := b.opt.diff.newMachine
	if m == nil {
		return nil, true
	}
	to := m.pointOf(store.StateStream)
	return []store.Point{{Stream: store.StateStream, Point: to}}, to != ""
}
