//go:build !linux

package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// openReadOnly opens path for reading after judge (nil: anything goes) had its
// say on its real path. Without O_PATH and /proc the name is resolved first
// and the opened file compared with it.
func openReadOnly(path string, judge func(real string) error) (*inFile, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	if real, err = filepath.Abs(real); err != nil {
		return nil, err
	}
	before, err := os.Lstat(real)
	if err != nil {
		return nil, err
	}
	if err := kindError(path, before.Mode()); err != nil {
		return nil, err
	}
	if judge != nil {
		if err := judge(real); err != nil {
			return nil, err
		}
	}
	f, err := os.Open(real)
	if err != nil {
		return nil, err
	}
	after, err := f.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%s: replaced while it was opened", path)
	}
	var st fileStat
	if err == nil {
		st, err = statFile(f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &inFile{File: f, path: path, real: real, stat: st}, nil
}

// statFile is what f is now.
func statFile(f *os.File) (fileStat, error) {
	info, err := f.Stat()
	if err != nil {
		return fileStat{}, err
	}
	st := fileStat{size: info.Size(), stored: storedBytes(info), mtime: info.ModTime().UTC()}
	st.block = info.Mode()&os.ModeDevice != 0
	if st.dev, st.ino, err = fileNumbers(f, info); err == nil && st.block {
		st.rdev = st.ino
		st.size, err = f.Seek(0, io.SeekEnd)
	}
	return st, err
}

// timesOf is what statFile says of the times.
func timesOf(f *os.File) (stamp, error) {
	info, err := f.Stat()
	if err != nil {
		return stamp{}, err
	}
	return stamp{mtime: info.ModTime(), size: info.Size()}, nil
}
