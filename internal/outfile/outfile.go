// Package outfile writes files that appear under their name only when they
// are whole and durable.
package outfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ErrLocked says that somebody else holds a lock.
var ErrLocked = errors.New("locked by another process")

// ErrNoDevice says that a new file was to be made among the devices: the name of a
// device is mistyped, or the device is gone.
var ErrNoDevice = errors.New("there is no such device, and no file is made among the devices")

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
	if err := RefuseNew(path); err != nil {
		return nil, err
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

// Probe says why Create and Commit could not make the file, as far as that can be
// known without making one: a file that is there already, a directory that may not
// be written to. Nothing gets a name.
func Probe(path string, replace bool) error {
	path = filepath.Clean(path)
	if _, err := os.Lstat(path); err == nil && !replace {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := RefuseNew(path); err != nil {
		return err
	}
	f, err := createUnnamed(filepath.Dir(path))
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// CreateIn begins a file in dir whose name is known when it is whole: then
// CommitAs gives it, and an existing file is never replaced. Where the file
// needs a name before, that begins with a dot and prefix and ends with suffix
// and ".part", for Sweep to find.
func CreateIn(dir, prefix, suffix string) (*File, error) {
	return Create(filepath.Join(dir, prefix+"-"+rand.Text()+suffix), false)
}

// CommitAs is Commit under another name in the same directory.
func (f *File) CommitAs(name string) error {
	f.path = filepath.Join(filepath.Dir(f.path), name)
	return f.Commit()
}

// Sweep removes what killed processes left of files with this suffix in dir;
// what a living one writes stays. It does nothing where files cannot be locked.
func Sweep(dir, suffix string) error {
	if !canLock {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if !e.Type().IsRegular() || !strings.HasPrefix(name, ".") || !strings.HasSuffix(name, suffix+partSuffix) {
			continue
		}
		if err := sweep(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// sweep removes one file if nobody holds it. A process that opened it just now
// and gets the lock next sees that it is gone; see createPart.
func sweep(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|noFollow, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if Lock(f) != nil || !names(path, f) {
		return nil
	}
	return os.Remove(path)
}

// names says whether path still leads to f.
func names(path string, f *os.File) bool {
	there, err := os.Lstat(path)
	if err != nil {
		return false
	}
	st, err := f.Stat()
	return err == nil && os.SameFile(there, st)
}

const partSuffix = ".part"

// createPart makes ".NAME.part", or takes it over if no living process has it.
func (f *File) createPart() (err error) {
	f.temp = filepath.Join(filepath.Dir(f.path), "."+filepath.Base(f.path)+partSuffix)
	for try := 1; ; try++ {
		if f.File, err = os.OpenFile(f.temp, os.O_RDWR|os.O_CREATE|noFollow, 0o600); err != nil {
			return err
		}
		if err := Lock(f.File); err != nil {
			f.File.Close()
			if try < 4 { // Sweep may be looking at it
				time.Sleep(10 * time.Millisecond)
				continue
			}
			return fmt.Errorf("%s: another process is writing it: %w", f.temp, err)
		}
		if names(f.temp, f.File) {
			break
		}
		f.File.Close() // somebody swept it away before it was locked
	}
	if err := errors.Join(f.Truncate(0), f.Chmod(0o600)); err != nil {
		f.File.Close()
		return err
	}
	return nil
}

// SetTime gives the file a time of last change. Nothing must be written after it.
func (f *File) SetTime(t time.Time) error {
	path := f.temp
	if path == "" {
		path = unnamedPath(f.File)
	}
	return os.Chtimes(path, t, t)
}

// RemovePart removes what a process that was killed left of a file that was to
// be at path. What a living one writes stays, as with Sweep.
func RemovePart(path string) error {
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+partSuffix)
	st, err := os.Lstat(temp)
	if err == nil && st.Mode().IsRegular() && canLock {
		err = sweep(temp)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
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
		f.temp = filepath.Join(filepath.Dir(f.path), "."+filepath.Base(f.path)+partSuffix)
		_ = Lock(f.File) // keeps Sweep away; where there are no locks it does nothing
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
