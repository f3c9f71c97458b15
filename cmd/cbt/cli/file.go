package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"cbt/internal/audit"
	"cbt/internal/infile"
	"cbt/lvm"
)

// file is a source: a regular file or a block device, open for reading only
// and without touching its access time where that is possible.
type file struct {
	*infile.Input
	frozen bool         // the user says that nobody writes to it
	watch  *deviceWatch // of a device

	lv    *lvm.LV    // the volume that stands for a file; nil: it is one
	vol   *source    // where that has no device: its content, and File is nil
	nodes []*os.File // further nodes of its device
}

// openFile opens path for reading, after judge (nil: anything goes) had its say
// on its real path, and records it. Nothing else opens sources.
func openFile(path string, reads *audit.Reading, judge func(real string) error) (*file, error) {
	in, err := reads.Open(path, judge)
	if errors.Is(err, fs.ErrNotExist) {
		if other := infile.AddressError(path); other != nil {
			err = other
		}
	}
	if err != nil {
		return nil, err
	}
	return &file{Input: in, frozen: reads.Frozen}, nil
}

// ReadAt is safe for concurrent use.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if f.vol != nil {
		return f.vol.View.ReadAt(p, off)
	}
	return f.Input.ReadAt(p, off)
}

// shown is where the file is: of a volume its usual name.
func (f *file) shown() string {
	if f.lv != nil {
		return f.Path
	}
	return f.Real
}

// Close closes the file; what stands for one is its opener's.
func (f *file) Close() error {
	if f.vol != nil {
		return nil
	}
	for _, n := range f.nodes {
		n.Close() // only ever read
	}
	return f.File.Close()
}

// changed says whether somebody wrote to f since it was opened. Without --frozen
// it is enough that somebody could have: a time of last change that was put
// back leaves its trace in the ctime, and so does a chmod.
func (f *file) changed() error {
	if f.vol != nil {
		return f.vol.Recheck()
	}
	now, err := infile.StatOf(f.File)
	switch {
	case err != nil:
		return err
	case !f.Info.Unwritten(now):
		return fmt.Errorf("%s: changed while it was read", f.Path)
	case !f.Info.Unchanged(now) && !f.frozen:
		return fmt.Errorf("%s: may have changed while it was read: its ctime did, as by a write whose time was put back, or by chmod, chown, a link or a rename (run again; --frozen says that nobody writes to it)", f.Path)
	}
	if f.watch != nil {
		return f.watch.check(f)
	}
	return nil
}
