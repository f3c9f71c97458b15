package cli

import (
	"fmt"
	"io"
	"os"

	"cbt/lvm"
)

// file is a source: a regular file or a block device, open for reading only
// and without touching its access time where that is possible.
type file struct {
	*os.File
	path  string       // as it was named: names inside it are relative to its directory
	real  string       // where the open descriptor is, links resolved
	stat  fileStat     // when it was opened
	reads *reading     // of all files of a run
	watch *deviceWatch // of a device

	lv    *lvm.LV    // the volume that stands for a file; nil: it is one
	vol   *source    // where that has no device: its content, and File is nil
	nodes []*os.File // further nodes of its device
}

// openFile opens path for reading, after judge (nil: anything goes) had its say
// on its real path, and records it. Nothing else opens sources.
func openFile(path string, reads *reading, judge func(real string) error) (*file, error) {
	f, err := openReadOnly(path, judge)
	if isNotExist(err) {
		if other := addressError(path); other != nil {
			err = other
		}
	}
	if err != nil {
		return nil, err
	}
	f.reads = reads
	if err := reads.audit.input(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ReadAt is safe for concurrent use.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if f.vol != nil {
		return f.vol.View.ReadAt(p, off)
	}
	n, err := f.File.ReadAt(p, off)
	f.reads.Add(int64(n))
	return n, err
}

// shown is where the file is: of a volume its usual name.
func (f *file) shown() string {
	if f.lv != nil {
		return f.path
	}
	return f.real
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
	now, err := statFile(f.File)
	switch {
	case err != nil:
		return err
	case !f.stat.unwritten(now):
		return fmt.Errorf("%s: changed while it was read", f.path)
	case !f.stat.unchanged(now) && !f.reads.frozen:
		return fmt.Errorf("%s: may have changed while it was read: its ctime did, as by a write whose time was put back, or by chmod, chown, a link or a rename (run again; --frozen says that nobody writes to it)", f.path)
	}
	if f.watch != nil {
		return f.watch.check(f)
	}
	return nil
}

// written says whether the time tells that somebody wrote to f since it was
// opened. It is for deltas, whose bytes have checksums: they may be linked and
// renamed meanwhile.
func (f *file) written() error {
	now, err := statFile(f.File)
	if err == nil && !f.stat.unwritten(now) {
		err = fmt.Errorf("%s: changed while it was read", f.path)
	}
	return err
}

// head returns the first n bytes, or all there are.
func (f *file) head(n int) ([]byte, error) {
	p := make([]byte, n)
	n, err := f.ReadAt(p, 0)
	if err == io.EOF {
		err = nil
	}
	return p[:n], err
}

// tail returns the last n bytes, or all there are.
func (f *file) tail(n int64) ([]byte, error) {
	n = min(n, f.stat.size)
	p := make([]byte, n)
	got, err := f.ReadAt(p, f.stat.size-n)
	if err == io.EOF {
		err = nil
	}
	return p[:got], err
}

// kindError says why a file of this mode is no source. What blocks, has side
// effects or no size is refused.
func kindError(path string, mode os.FileMode) error {
	kind := "no regular file and no block device"
	switch {
	case mode.IsRegular(), mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0:
		return nil
	case mode.IsDir():
		kind = "a directory"
	case mode&os.ModeNamedPipe != 0:
		kind = "a pipe"
	case mode&os.ModeCharDevice != 0:
		kind = "a character device"
	case mode&os.ModeSocket != 0:
		kind = "a socket"
	}
	return fmt.Errorf("%s: is %s: images are regular files and block devices", path, kind)
}
