package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/text"
	"cbt/sparse"
)

// chainOptions say where the deltas are that others build on.
type chainOptions struct {
	dir      string
	spoolDir string
}

func addChainFlag(o *chainOptions, fs *pflag.FlagSet) {
	fs.StringVar(&o.dir, "chain", "", "look for the deltas that others build on in `DIR` (default: where the delta is)")
}

func addSpoolFlag(o *chainOptions, fs *pflag.FlagSet) {
	fs.StringVar(&o.spoolDir, "spool-dir", "", "`DIR` where a delta from standard input is kept until it is verified (default: TMPDIR or /var/tmp)")
}

// stdinName is the argument that means standard input or output.
const stdinName = "-"

// chainRef is a delta, and where those are that it builds on.
type chainRef struct {
	delta *deltaFile
	opt   chainOptions
}

// deltaFile is a delta and the file it was opened from.
type deltaFile struct {
	*cbt.Delta
	name string // for messages
	dir  string // where its chain is looked for; empty: nowhere
	f    *infile.Input
}

// openDeltaFile opens the delta at path for reading. The opener closes it.
func (o *deltaFiles) openDeltaFile(path string) (*deltaFile, error) {
	f, err := o.reads.Open(path, nil)
	if err != nil {
		return nil, o.explain(path, nil, err)
	}
	d, err := cbt.Open(f, f.Info.Size)
	if err != nil {
		if other := o.explain(path, f, nil); other != nil {
			err = other
		} else if errors.As(err, new(*sparse.FormatError)) {
			err = fmt.Errorf("%s: is damaged: %w", path, err)
		} else {
			err = fmt.Errorf("%s: %w", path, err)
		}
		f.Close()
		return nil, err
	}
	return o.keep(&deltaFile{d, path, filepath.Dir(path), f}), nil
}

// keep remembers where a delta came from.
func (o *deltaFiles) keep(d *deltaFile) *deltaFile {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d.f != nil {
		o.open = append(o.open, d.f)
	}
	if o.files == nil {
		o.files = make(map[*cbt.Ends]*deltaFile)
	}
	o.files[d.Ends()] = d
	return d
}

// deltaName is what messages call a delta of a chain.
func (o *deltaFiles) deltaName(d *cbt.Delta) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f := o.files[d.Ends()]; f != nil {
		return f.name
	}
	return "delta"
}

// deltasIn opens all deltas of a directory, once for all streams whose chains
// are there. What cannot be read as one is passed over with a warning: it
// matters only if a chain needs it.
func (o *deltaFiles) deltasIn(dir string) (*deltaDir, error) {
	o.looking.Lock()
	defer o.looking.Unlock()
	if all, ok := o.dirs[dir]; ok {
		return all, nil
	}
	names, err := deltaNames(dir)
	if err != nil {
		return nil, err
	}
	all := &deltaDir{}
	for _, name := range names {
		d, err := o.openDeltaFile(name)
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			return nil, fmt.Errorf("%w (ulimit -n must allow for every delta in the directory)", err)
		}
		if err != nil {
			o.Warnf("passed over: %v", err)
			continue
		}
		all.files = append(all.files, d)
	}
	all.Catalogue = catalogue(all.files)
	if o.dirs == nil {
		o.dirs = make(map[string]*deltaDir)
	}
	o.dirs[dir] = all
	return all, nil
}

// deltaDir is a directory of deltas, all of them open.
type deltaDir struct {
	files []*deltaFile // ascending names
	*cbt.Catalogue
}

func catalogue(files []*deltaFile) *cbt.Catalogue {
	ends := make([]*cbt.Ends, len(files))
	for i, f := range files {
		ends[i] = f.Ends()
	}
	return cbt.NewCatalogue(ends)
}

// layersTo are the open deltas of the catalogue that lead to the state after d of
// one of its streams.
func (o *deltaFiles) layersTo(all *cbt.Catalogue, d *cbt.Delta, stream int) ([]cbt.Layer, error) {
	r, err := all.Route(d.Ends(), stream)
	if err != nil {
		return nil, err
	}
	return r.Layers(o.opened)
}

// deltaNames lists the paths of what is named .cbt in dir. A symbolic link that leads
// out of dir counts like a file; one that leads to another file of the list is
// that file, and does not count.
func deltaNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, dirError(dir, err)
	}
	var names []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasSuffix(e.Name(), deltaSuffix) && !e.IsDir() && !(e.Type()&fs.ModeSymlink != 0 && isAlias(path)) {
			names = append(names, path)
		}
	}
	return names, nil
}

// isAlias says whether a link leads to another delta of its directory.
func isAlias(path string) bool {
	real, err := filepath.EvalSymlinks(path)
	if err != nil || !strings.HasSuffix(real, deltaSuffix) {
		return false
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return false
	}
	if filepath.IsAbs(real) != filepath.IsAbs(dir) { // one link was absolute
		if dir, err = filepath.Abs(dir); err == nil {
			real, err = filepath.Abs(real)
		}
	}
	return err == nil && filepath.Dir(real) == filepath.Clean(dir)
}

// dirError is what all commands say of a directory that is missing, and of what is
// none. There is one exit code for each.
func dirError(dir string, err error) error {
	switch other := addressError(dir); {
	case errors.Is(err, fs.ErrNotExist) && other != nil:
		return other
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: there is no such directory", text.Printable(dir))
	case errors.Is(err, syscall.ENOTDIR):
		return fail.Usage("%s: is no directory", text.Printable(dir))
	}
	return err
}

// chain finds what leads to the state of a stream after d, oldest first.
func (o *deltaFiles) chain(d *deltaFile, stream int, opt chainOptions) ([]cbt.Layer, error) {
	if d.Header.Streams[stream].Full {
		return []cbt.Layer{{Delta: d.Delta, Stream: stream}}, nil
	}
	all, err := o.around(d, opt)
	if err != nil {
		return nil, err
	}
	layers, err := o.layersTo(all.Catalogue, d.Delta, stream)
	return layers, o.noChain(d, opt, err)
}

// chainTo is chain; where the parent of d is missing, and others lead to its point,
// those, which is said once unless it was said already.
func (o *deltaFiles) chainTo(d *deltaFile, stream int, opt chainOptions, said bool) ([]cbt.Layer, error) {
	layers, missing := o.chain(d, stream, opt)
	if !errors.As(missing, new(*cbt.MissingError)) {
		return layers, missing
	}
	all, err := o.around(d, opt)
	if err != nil {
		return nil, err
	}
	r, err := all.Way(d.Ends(), stream)
	if err != nil {
		return nil, missing
	}
	if layers, err = r.Layers(o.opened); err == nil && !said {
		_, err := all.Route(d.Ends(), stream)
		o.passedOver(d.Ends(), err)
	}
	return layers, err
}

// openChain opens the state after the delta at path as a source. opt.Snapshot
// names a stream, for deltas of several.
func (o *opener) openChain(path string, ref string, opt refOptions, chain chainOptions) (*source, error) {
	if opt.SnapshotID != "" {
		return nil, fail.Usage("%s: is a delta and has no snapshots", path)
	}
	path, err := o.resolve(path)
	if err != nil {
		return nil, err
	}
	d, err := o.openDeltaFile(path)
	if err != nil {
		return nil, err
	}
	if opt.state {
		return &source{Ref: ref, Path: path, Format: formatDelta, chain: &chainRef{d, chain}}, nil
	}
	stream, err := d.find(opt.Snapshot)
	if err != nil {
		return nil, err
	}
	return o.streamAfter(d, stream, ref, chain)
}

// streamAfter is the state of a stream after d as a source.
func (o *opener) streamAfter(d *deltaFile, stream int, ref string, chain chainOptions) (*source, error) {
	view, err := o.routes(d, chain).View(d.Ends(), stream)
	if err != nil {
		return nil, o.noChain(d, chain, err)
	}
	s := &source{View: view, Ref: ref, Path: d.name, Format: formatDelta, Point: d.Header.Streams[stream].To, chain: &chainRef{d, chain}}
	if d.Header.Instant != nil {
		s.Instant = *d.Header.Instant
	}
	s.stream, s.layers = d.Header.Streams[stream].Name, view.Layers()
	return s, nil
}

// find returns the stream that name means: the only one, or the only disk, if
// it is empty, else a whole stream name or that of a disk.
func (d *deltaFile) find(name string) (int, error) {
	streams := d.Header.Streams
	if name == "" {
		if len(streams) == 1 {
			return 0, nil
		}
		if disks := d.disks(); len(disks) == 1 {
			return disks[0], nil
		}
		if len(d.disks()) == 0 && d.Stream(stateStream) >= 0 {
			return 0, fail.Usage("%s: has RAM and no disk: cbt restore %s --state FILE writes the machine's state", d.name, text.Quote(text.PathArgument(d.name)))
		}
		return 0, fail.Usage("%s: has %d streams: choose one with %s: %s", d.name, len(streams), text.Quote(d.name+"@NAME"), d.streamNames())
	}
	if i := d.Stream("disk/" + name); i >= 0 {
		return i, nil
	}
	if i := d.Stream(name); i >= 0 {
		return i, nil
	}
	return 0, fail.Usage("%s: has no stream %s; there are: %s", d.name, text.Printable(name), d.streamNames())
}

// disks are the streams that are disks.
func (d *deltaFile) disks() (list []int) {
	for i, s := range d.Header.Streams {
		if strings.HasPrefix(s.Name, "disk/") {
			list = append(list, i)
		}
	}
	return list
}

func (d *deltaFile) streamNames() string {
	var names []string
	for i, s := range d.Header.Streams {
		if i == 10 {
			names = append(names, fmt.Sprintf("and %d more", len(d.Header.Streams)-i))
			break
		}
		names = append(names, text.Printable(strings.TrimPrefix(s.Name, "disk/")))
	}
	return strings.Join(names, ", ")
}

// spoolDir is where files without a name are made.
func (a *app) spoolDir(flag string) string { return cmp.Or(flag, a.Getenv("TMPDIR"), "/var/tmp") }

// spool verifies a delta that comes on standard input while it is copied to a
// file without a name, and opens that: nothing is made of a delta before all
// of it is there and right.
func spool(a *app, ctx context.Context, o *opener, opt chainOptions) (*deltaFile, error) {
	tmp, err := infile.Unnamed(a.spoolDir(opt.spoolDir))
	if err != nil {
		return nil, fmt.Errorf("keeping the delta from standard input: %w", err)
	}
	f := &infile.Input{File: tmp, Path: "standard input", Count: &o.reads.Int64}
	_, sum, err := cbt.Verify(ctx, infile.Tee(ctx, a.Stdin, tmp), cbt.VerifyOptions{})
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	d, err := cbt.Open(f, sum.Size)
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	return o.keep(&deltaFile{d, "standard input", "", f}), nil
}

// badDeltaError says which delta of a chain is damaged, or cannot be read.
type badDeltaError struct {
	delta *cbt.Delta
	name  string
	err   error
}

func (e *badDeltaError) Error() string {
	if !errors.As(e.err, new(*sparse.FormatError)) {
		return e.name + ": " + e.err.Error()
	}
	look := ""
	if strings.HasSuffix(e.name, deltaSuffix) {
		look = " (cbt verify " + text.Quote(text.PathArgument(filepath.Dir(e.name))) + " looks at all that is there)"
	}
	return fmt.Sprintf("%s: is damaged, so nothing was written: %v%s", e.name, e.err, look)
}
func (e *badDeltaError) Unwrap() error { return e.err }

// without leaves a delta out of the chains that are found from now on.
func (o *deltaFiles) without(d *cbt.Delta) {
	for _, all := range o.dirs {
		all.files = slices.DeleteFunc(all.files, func(f *deltaFile) bool { return f.ID() == d.ID() })
		all.Catalogue = catalogue(all.files)
	}
}

// verifyAll reads every byte of the deltas of the chains, once each, before
// anything is written from them.
func (o *deltaFiles) verifyAll(ctx context.Context, layers [][]cbt.Layer) error {
	seen := map[*cbt.Delta]bool{}
	var list []*cbt.Delta
	var total int64
	for _, chain := range layers {
		for _, l := range chain {
			if !seen[l.Delta] {
				seen[l.Delta] = true
				list = append(list, l.Delta)
				total += l.Delta.Size()
			}
		}
	}
	p := o.Start("verifying", total)
	defer p.Finish()
	var before int64
	for _, d := range list {
		_, sum, err := cbt.Verify(ctx, d.Reader(), cbt.VerifyOptions{
			Progress: func(done int64) { p.Set(before + done) },
		})
		if err == nil && sum.ID != d.ID() {
			err = errors.New("changed while it was read")
		}
		if err != nil {
			return &badDeltaError{d, o.deltaName(d), err}
		}
		before += d.Size()
	}
	return nil
}
