package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/store"
	"cbt/internal/text"
)

// restoration is all that one run restores.
type restoration struct {
	*app
	opt    *restoreOptions
	opener *opener
	delta  *store.File
	past   bool // it goes past a damaged delta, which is what is said

	layers  [][]cbt.Layer // chains, those of the targets first
	inPlace []*task
	fresh   []*newTarget
	state   *stateTarget // nil if it is not asked for
}

// open prepares all targets. Nothing is written yet.
func (r *restoration) open(targets []namedTarget) error {
	streams, err := matchTargets(r.delta, targets)
	if err != nil {
		return err
	}
	for _, stream := range streams {
		chain, err := r.opener.ChainTo(r.delta, stream, r.opt.chain, r.past)
		if err != nil {
			return err
		}
		r.layers = append(r.layers, chain)
	}
	if err := r.opener.refuseSources(targets); err != nil {
		return err
	}
	for i, t := range targets {
		// What a link leads to is the target: its record lies beside it.
		if real, err := filepath.EvalSymlinks(t.path); err == nil {
			t.path = real
		}
		if err := r.openTarget(t.path, r.layers[i]); err != nil {
			return err
		}
	}
	if r.opt.state == "" {
		return nil
	}
	if r.state, err = r.opener.openStateTarget(r.delta, targets, r.opt); err != nil {
		return err
	}
	r.layers = append(r.layers, r.state.layers()...)
	return nil
}

// another is the restoration by chains that lead past a delta that is damaged or
// cannot be read, nil if there are none. It closes r.
func (r *restoration) another(ctx context.Context, targets []namedTarget, err error) *restoration {
	bad := (*store.BadDeltaError)(nil)
	r.close()
	if ctx.Err() != nil || !errors.As(err, &bad) {
		return nil
	}
	other := &restoration{app: r.app, opt: r.opt, opener: r.opener, delta: r.delta, past: true}
	if bad.Delta.ID() == r.delta.ID() {
		if other.delta = r.opener.SameStates(r.delta, r.opt.chain); other.delta == nil {
			return nil
		}
	}
	r.opener.Without(bad.Delta)
	if other.open(targets) != nil {
		other.close()
		return nil
	}
	r.opener.PassedOver(bad.Delta.Ends(), bad.Err)
	return other
}

func (r *restoration) openTarget(path string, chain []cbt.Layer) error {
	merge, err := cbt.NewMerge(chain...)
	if err != nil {
		return err
	}
	block, err := checkRestoreTarget(path, r.opt)
	if err != nil {
		return err
	}
	if !(r.opt.inPlace && infile.Exists(path)) && !block {
		n, err := createTarget(r.audit, path, r.opt, chain, merge)
		if err != nil {
			return err
		}
		r.fresh = append(r.fresh, n)
		return nil
	}
	target, err := openTarget(r.audit, path, r.opt.stateDir, r.opt.format == formatRaw)
	if err != nil {
		return err
	}
	r.inPlace = append(r.inPlace, &task{target: target, layers: chain, merge: merge})
	return tooSmall(target, merge.Size())
}

// write writes everything. First the state, without its name: an old one of that
// name is gone before a disk beside it is another one's, and the new one is
// there when the disks are.
func (r *restoration) write(ctx context.Context) (total cbt.ApplyStats, state int64, err error) {
	if r.state != nil {
		if state, err = r.state.write(ctx, r.app); err != nil {
			return total, 0, err
		}
		if err := r.state.removeOld(); err != nil {
			return total, 0, err
		}
	}
	if total, err = r.writeTasks(ctx, r.inPlace, "restore", cbt.ApplyOptions{Compare: true}); err != nil {
		return total, 0, err
	}
	for _, n := range r.fresh {
		st, err := n.write(ctx, r.app)
		total.Add(st)
		if err != nil {
			return total, 0, fmt.Errorf("%s: %w", n.path, err)
		}
	}
	for _, n := range r.fresh {
		if err := n.commit(ctx); err != nil {
			return total, 0, fmt.Errorf("%s: %w", n.path, err)
		}
	}
	if r.state != nil {
		if err := r.state.file.Commit(); err != nil {
			return total, 0, refError(r.state.path, err)
		}
	}
	return total, state, nil
}

// close gives up what did not get its name.
func (r *restoration) close() {
	for _, t := range r.inPlace {
		t.target.Close()
	}
	for _, n := range r.fresh {
		n.abort()
	}
	r.state.abort()
}

// checkRestoreTarget says whether the path may be written to, and whether it
// is a device.
func checkRestoreTarget(path string, opt *restoreOptions) (block bool, err error) {
	if ext := strings.ToLower(filepath.Ext(path)); opt.format == formatQcow2 && (ext == ".raw" || ext == ".dd") {
		return false, fail.Usage("%s: is named like a raw image, but a qcow2 image would go there: every reader would have to be told", text.Printable(path))
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if opt.format == "" {
			err = refuseContainer(path, nil)
		} else {
			err = nil
		}
		return false, err
	case err != nil:
		return false, err
	}
	if st.IsDir() {
		return false, fail.Usage("%s: is a directory: a target is a file, in it perhaps, or a device", text.Printable(path))
	}
	if err := infile.KindError(path, st.Mode()); err != nil {
		return false, err
	}
	block = st.Mode()&os.ModeDevice != 0
	switch {
	case !opt.inPlace && block:
		return block, fail.Usage("%s: is a device: --in-place writes over what is there", path)
	case !opt.overwrite && !opt.inPlace:
		return block, fail.Usage("%s: exists already: --overwrite replaces it, --in-place writes where it differs", path)
	case block && opt.format == formatQcow2:
		return block, fail.Usage("%s: is a device: a qcow2 image is written to a file", path)
	}
	return block, nil
}

func tooSmall(t *imageTarget, size int64) error {
	if t.stat.Block && t.Size() < size {
		return fmt.Errorf("%s: a device of %d bytes cannot hold the image of %d", t.path, t.Size(), size)
	}
	return nil
}
