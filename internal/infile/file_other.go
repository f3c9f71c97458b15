//go:build !linux

package infile

import (
	"fmt"
	"io"
	"os"
)

// Open opens path for reading after judge (nil: anything goes) had its
// say on its real path. Without O_PATH and /proc the name is resolved first
// and the opened file compared with it.
func Open(path string, judge func(real string) error) (*Input, error) {
	real, err := RealPath(path)
	if err != nil {
		return nil, err
	}
	before, err := os.Lstat(real)
	if err != nil {
		return nil, err
	}
	if err := KindError(path, before.Mode()); err != nil {
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
	var st Stat
	if err == nil {
		st, err = StatOf(f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Input{File: f, Path: path, Real: real, Info: st}, nil
}

// StatOf is what f is now.
func StatOf(f *os.File) (Stat, error) {
	info, err := f.Stat()
	if err != nil {
		return Stat{}, err
	}
	st := Stat{Size: info.Size(), Stored: storedBytes(info), Mtime: info.ModTime().UTC()}
	st.Block = info.Mode()&os.ModeDevice != 0
	if st.Dev, st.Ino, err = fileNumbers(f, info); err == nil && st.Block {
		st.Rdev = st.Ino
		st.Size, err = f.Seek(0, io.SeekEnd)
	}
	return st, err
}

// TimesOf is what StatOf says of the times.
func TimesOf(f *os.File) (Stamp, error) {
	info, err := f.Stat()
	if err != nil {
		return Stamp{}, err
	}
	return Stamp{Mtime: info.ModTime(), size: info.Size()}, nil
}
