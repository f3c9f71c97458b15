package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"cbt/cbt"
	"cbt/internal/audit"
	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/outfile"
	"cbt/internal/record"
	"cbt/internal/store"
	"cbt/qcow2"
	"cbt/sparse"
)

// newTarget is a target that appears when it is whole.
type newTarget struct {
	path   string
	file   *audit.OutFile
	old    *imageTarget // what is replaced, held
	layers []cbt.Layer
	merge  *cbt.Merge
	qcow2  bool

	overwrite bool
}

func createTarget(u *audit.Recorder, path string, opt *restoreOptions, layers []cbt.Layer, merge *cbt.Merge) (_ *newTarget, err error) {
	n := &newTarget{path: path, layers: layers, merge: merge, qcow2: opt.format == formatQcow2, overwrite: opt.overwrite}
	if infile.Exists(path) {
		// Nothing is written to it, but who uses it must not lose it.
		if n.old, err = openTarget(u, path, opt.stateDir, opt.format != ""); err != nil {
			return nil, err
		}
	}
	if opt.dryRun {
		err = u.Probe(path, opt.overwrite)
	} else {
		n.file, err = u.Create(path, opt.overwrite)
	}
	if errors.Is(err, fs.ErrExist) { // came just now, or a dangling link
		err = fail.Usage("%s: exists already: --overwrite replaces it", path)
	}
	if err != nil {
		n.abort()
		return nil, err
	}
	return n, nil
}

func (n *newTarget) write(ctx context.Context, a *app) (cbt.ApplyStats, error) {
	if n.qcow2 {
		stack, err := cbt.NewStack(n.layers...)
		if err != nil {
			return cbt.ApplyStats{}, err
		}
		p := a.Start("restoring", stack.Size())
		defer p.Finish()
		err = qcow2.Write(ctx, n.file, stack, qcow2.WriteOptions{Progress: p.Set})
		if err != nil {
			return cbt.ApplyStats{}, err
		}
		st, err := n.file.Stat()
		if err != nil {
			return cbt.ApplyStats{}, err
		}
		return cbt.ApplyStats{Written: st.Size()}, nil
	}
	target, err := sparse.OpenTarget(n.file.File.File)
	if err != nil {
		return cbt.ApplyStats{}, err
	}
	p := a.Start("restoring", n.merge.Payload())
	defer p.Finish()
	return n.merge.WriteTo(ctx, target, cbt.ApplyOptions{Fresh: true, Progress: p.Set})
}

// commit gives the target its name. Its record comes first: a target without
// one could not be built on, a record without its target does not matter.
func (n *newTarget) commit(ctx context.Context) (err error) {
	if err := n.file.Sync(); err != nil {
		return err
	}
	// Of two that restore to one new file the second must not put its record
	// in place of the first one's. That takes a moment; who holds the lock for
	// longer reads deltas there.
	lock, err := outfile.LockDir(ctx, filepath.Dir(n.path), true, store.Moment)
	switch {
	case err == nil:
		defer lock.Close()
	case !errors.Is(err, outfile.ErrLocked) && !errors.Is(err, errors.ErrUnsupported):
		return err
	}
	if _, err := os.Lstat(n.path); err == nil && !n.overwrite {
		return fail.Usage("exists already: somebody else made it meanwhile")
	}
	if !n.qcow2 {
		f := &infile.Input{File: n.file.File.File, Path: n.path}
		if f.Info, err = infile.StatOf(n.file.File.File); err != nil {
			return err
		}
		if err := f.Settle(ctx); err != nil {
			return err
		}
		r := recordOf(n.layers[len(n.layers)-1], f.File, f.Info)
		r.Ctime = time.Time{} // another one once it has its name
		if err := r.Write(n.file.Audit, n.path+record.Suffix); err != nil {
			return err
		}
		defer func() {
			if err == nil {
				err = n.named(ctx, f.Info, r)
			}
		}()
	} else if err := n.file.Audit.Remove(n.path + record.Suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it would be about the raw target that is replaced
	}
	return n.file.Commit()
}

// named completes the record of a target that got its name, and was st before:
// giving it one changed its ctime. A run that is killed before leaves a record
// that bytes have to confirm.
func (n *newTarget) named(ctx context.Context, st infile.Stat, r *record.Record) error {
	f, err := n.file.Audit.Again(n.path)
	if err != nil {
		return err
	}
	defer f.Close()
	// An interrupt comes too late to undo anything: the target is there.
	if err := f.Settle(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	if !st.Unwritten(f.Info) {
		return nil // somebody was quick to write to it
	}
	r.Describe(f.File, f.Info)
	return r.Write(n.file.Audit, n.path+record.Suffix)
}

func (n *newTarget) abort() {
	if n.file != nil {
		n.file.Abort()
	}
	if n.old != nil {
		n.old.Close()
	}
}
