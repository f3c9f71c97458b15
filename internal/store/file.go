package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/text"
	"cbt/sparse"
)

// ChainOptions say where the deltas are that others build on.
type ChainOptions struct {
	Dir      string
	SpoolDir string
}

// File is a delta and the file it was opened from.
type File struct {
	*cbt.Delta
	Name  string // for messages
	Dir   string // where its chain is looked for; empty: nowhere
	Input *infile.Input
}

// OpenDelta opens the delta at path for reading. The opener closes it.
func (o *Files) OpenDelta(path string) (*File, error) {
	f, err := o.Reads.Open(path, nil)
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
	return o.Keep(&File{d, path, filepath.Dir(path), f}), nil
}

// Keep remembers where a delta came from.
func (o *Files) Keep(d *File) *File {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d.Input != nil {
		o.Inputs = append(o.Inputs, d.Input)
	}
	if o.files == nil {
		o.files = make(map[*cbt.Ends]*File)
	}
	o.files[d.Ends()] = d
	return d
}

// NameOf is what messages call a delta of a chain.
func (o *Files) NameOf(d *cbt.Delta) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f := o.files[d.Ends()]; f != nil {
		return f.Name
	}
	return "delta"
}

// deltasIn opens all deltas of a directory, once for all streams whose chains
// are there. What cannot be read as one is passed over with a warning: it
// matters only if a chain needs it.
func (o *Files) deltasIn(dir string) (*directory, error) {
	o.looking.Lock()
	defer o.looking.Unlock()
	if all, ok := o.dirs[dir]; ok {
		return all, nil
	}
	names, err := Names(dir)
	if err != nil {
		return nil, err
	}
	all := &directory{}
	for _, name := range names {
		d, err := o.OpenDelta(name)
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			return nil, fmt.Errorf("%w (ulimit -n must allow for every delta in the directory)", err)
		}
		if err != nil {
			o.Warnf("passed over: %v", err)
			continue
		}
		all.files = append(all.files, d)
	}
	all.Catalogue = Catalogue(all.files)
	if o.dirs == nil {
		o.dirs = make(map[string]*directory)
	}
	o.dirs[dir] = all
	return all, nil
}

// directory is a directory of deltas, all of them open.
type directory struct {
	files []*File // ascending names
	*cbt.Catalogue
}

func Catalogue(files []*File) *cbt.Catalogue {
	ends := make([]*cbt.Ends, len(files))
	for i, f := range files {
		ends[i] = f.Ends()
	}
	return cbt.NewCatalogue(ends)
}

// layersTo are the open deltas of the catalogue that lead to the state after d of
// one of its streams.
func (o *Files) layersTo(all *cbt.Catalogue, d *cbt.Delta, stream int) ([]cbt.Layer, error) {
	r, err := all.Route(d.Ends(), stream)
	if err != nil {
		return nil, err
	}
	return r.Layers(o.Opened)
}

// Names lists the paths of what is named .cbt in dir. A symbolic link that leads
// out of dir counts like a file; one that leads to another file of the list is
// that file, and does not count.
func Names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, DirError(dir, err)
	}
	var names []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasSuffix(e.Name(), Suffix) && !e.IsDir() && !(e.Type()&fs.ModeSymlink != 0 && isAlias(path)) {
			names = append(names, path)
		}
	}
	return names, nil
}

// isAlias says whether a link leads to another delta of its directory.
func isAlias(path string) bool {
	real, err := infile.RealPath(path)
	if err != nil || !strings.HasSuffix(real, Suffix) {
		return false
	}
	dir, err := infile.RealPath(filepath.Dir(path))
	return err == nil && filepath.Dir(real) == dir
}

// DirError is what all commands say of a directory that is missing, and of what is
// none. There is one exit code for each.
func DirError(dir string, err error) error {
	switch other := infile.AddressError(dir); {
	case errors.Is(err, fs.ErrNotExist) && other != nil:
		return other
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: there is no such directory", text.Printable(dir))
	case errors.Is(err, syscall.ENOTDIR):
		return fail.Usage("%s: is no directory", text.Printable(dir))
	}
	return err
}

// Chain finds what leads to the state of a stream after d, oldest first.
func (o *Files) Chain(d *File, stream int, opt ChainOptions) ([]cbt.Layer, error) {
	if d.Header.Streams[stream].Full {
		return []cbt.Layer{{Delta: d.Delta, Stream: stream}}, nil
	}
	all, err := o.around(d, opt)
	if err != nil {
		return nil, err
	}
	layers, err := o.layersTo(all.Catalogue, d.Delta, stream)
	return layers, o.NoChain(d, opt, err)
}

// ChainTo is chain; where the parent of d is missing, and others lead to its point,
// those, which is said once unless it was said already.
func (o *Files) ChainTo(d *File, stream int, opt ChainOptions, said bool) ([]cbt.Layer, error) {
	layers, missing := o.Chain(d, stream, opt)
	if !errors.As(missing, new(*cbt.MissingError)) {
		return layers, missing
	}
	all, err := o.around(d, opt)
	if err != nil {
		return nil, err
	}
	r, err := all.AnyRoute(d.Ends(), stream)
	if err != nil {
		return nil, missing
	}
	if layers, err = r.Layers(o.Opened); err == nil && !said {
		_, err := all.Route(d.Ends(), stream)
		o.PassedOver(d.Ends(), err)
	}
	return layers, err
}

// Find returns the stream that name means: the only one, or the only disk, if
// it is empty, else a whole stream name or that of a disk.
func (d *File) Find(name string) (int, error) {
	streams := d.Header.Streams
	if name == "" {
		if len(streams) == 1 {
			return 0, nil
		}
		if disks := d.Disks(); len(disks) == 1 {
			return disks[0], nil
		}
		if len(d.Disks()) == 0 && d.Stream(StateStream) >= 0 {
			return 0, fail.Usage("%s: has RAM and no disk: cbt restore %s --state FILE writes the machine's state", d.Name, text.Quote(text.PathArgument(d.Name)))
		}
		return 0, fail.Usage("%s: has %d streams: choose one with %s: %s", d.Name, len(streams), text.Quote(d.Name+"@NAME"), d.StreamNames())
	}
	if i := d.Stream("disk/" + name); i >= 0 {
		return i, nil
	}
	if i := d.Stream(name); i >= 0 {
		return i, nil
	}
	return 0, fail.Usage("%s: has no stream %s; there are: %s", d.Name, text.Printable(name), d.StreamNames())
}

// Disks are the streams that are disks.
func (d *File) Disks() (list []int) {
	for i, s := range d.Header.Streams {
		if strings.HasPrefix(s.Name, "disk/") {
			list = append(list, i)
		}
	}
	return list
}

func (d *File) StreamNames() string {
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

// BadDeltaError says which delta of a chain is damaged, or cannot be read.
type BadDeltaError struct {
	Delta *cbt.Delta
	name  string
	Err   error
}

func (e *BadDeltaError) Error() string {
	if !errors.As(e.Err, new(*sparse.FormatError)) {
		return e.name + ": " + e.Err.Error()
	}
	look := ""
	if strings.HasSuffix(e.name, Suffix) {
		look = " (cbt verify " + text.Quote(text.PathArgument(filepath.Dir(e.name))) + " looks at all that is there)"
	}
	return fmt.Sprintf("%s: is damaged, so nothing was written: %v%s", e.name, e.Err, look)
}

func (e *BadDeltaError) Unwrap() error { return e.Err }

// Without leaves a delta out of the chains that are found from now on.
func (o *Files) Without(d *cbt.Delta) {
	for _, all := range o.dirs {
		all.files = slices.DeleteFunc(all.files, func(f *File) bool { return f.ID() == d.ID() })
		all.Catalogue = Catalogue(all.files)
	}
}

// VerifyAll reads every byte of the deltas of the chains, once each, before
// anything is written from them.
func (o *Files) VerifyAll(ctx context.Context, layers [][]cbt.Layer) error {
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
			return &BadDeltaError{d, o.NameOf(d), err}
		}
		before += d.Size()
	}
	return nil
}

const StateStream = "vmstate"
