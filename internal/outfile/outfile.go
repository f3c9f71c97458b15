// Package outfile writes files that appear under their name only when they
// are whole and durable.
package outfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrLocked says that somebody else holds a lock.
var ErrLocked = errors.New("locked by another process")

// File is a file that does not have its name yet. It is created 0600. Where
// the system can, it has no name at all, so that nothing is left of it when
// the process is killed; elsewhere it is called ".NAME.part" until then, and
// the next Create of the same path takes over what a killed one left.
type File struct {
	*os.File
	path    string
	temp    string // empty: no name
	replace bool
	done    bool
}

// Create begins a file. Unless replace is set a file that exists already is an
// error (fs.ErrExist), now and at Commit.
func Create(path string, replace bool) (*File, error) {
	path = filepath.Clean(path)
	if !replace {
		if _, err := os.Lstat(path); err == nil {
			return nil, &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	f := &File{path: path, replace: replace}
	var err error
	if f.File, err = createUnnamed(filepath.Dir(path)); err == nil {
		if err = f.Chmod(0o600); err != nil { // the umask may have taken bits
			f.Abort()
			return nil, err
		}
		return f, nil
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		return nil, err
	}
	return f, f.createPart()
}

// createPart makes ".NAME.part", or takes it over if no living process has it.
func (f *File) createPart() (err error) {
	f.temp = filepath.Join(filepath.Dir(f.path), "."+filepath.Base(f.path)+".part")
	if f.File, err = os.OpenFile(f.temp, os.O_RDWR|os.O_CREATE|noFollow, 0o600); err != nil {
		return err
	}
	if err := Lock(f.File); err != nil {
		f.File.Close()
		return fmt.Errorf("%s: another process is writing it: %w", f.temp, err)
	}
	if err := errors.Join(f.Truncate(0), f.Chmod(0o600)); err != nil {
		f.File.Close()
		return err
	}
	return nil
}

// Commit syncs the file, gives it its name, syncs the directory and closes it.
// If it fails the file is gone, and under the name is what was there before.
func (f *File) Commit() error {
	if f.done {
		return fs.ErrClosed
	}
	if err := f.Sync(); err != nil {
		f.Abort()
		return err
	}
	if err := f.publish(); err != nil {
		f.Abort()
		return err
	}
	f.done = true
	return errors.Join(f.File.Close(), SyncDir(filepath.Dir(f.path)))
}

func (f *File) publish() error {
	switch {
	case f.temp == "" && !f.replace:
		return linkUnnamed(f.File, f.path)
	case f.temp == "":
		// A name can be given to it only where none is: a second one first.
		f.temp = filepath.Join(filepath.Dir(f.path), "."+filepath.Base(f.path)+".part")
		err := linkUnnamed(f.File, f.temp)
		if errors.Is(err, fs.ErrExist) { // left by a killed process
			if err = os.Remove(f.temp); err == nil {
				err = linkUnnamed(f.File, f.temp)
			}
		}
		if err != nil {
			f.temp = ""
			return err
		}
		fallthrough
	case f.replace:
		return os.Rename(f.temp, f.path)
	}
	return renameNew(f.temp, f.path)
}

// Abort throws the file away. After Commit it does nothing.
func (f *File) Abort() {
	if f.done {
		return
	}
	f.done = true
	if f.temp != "" {
		os.Remove(f.temp)
	}
	f.File.Close()
}

// WriteFile puts data under path, durably and all at once, over what is there.
func WriteFile(path string, data []byte) error {
	f, err := Create(path, true)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// linkNew is a rename that never replaces, for systems without one.
func linkNew(temp, path string) error {
	if err := os.Link(temp, path); err != nil {
		return err
	}
	return os.Remove(temp)
}
