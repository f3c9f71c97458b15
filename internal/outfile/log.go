package outfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// ErrNotLog says that a file holds something else than lines of its kind.
var ErrNotLog = errors.New("is no such log")

// Log is a file that several processes append lines to, each of them whole.
// Its methods may be called at the same time from several goroutines.
type Log struct {
	mu sync.Mutex
	f  *os.File
}

// OpenLog opens the log at path, which is made, 0600, if it is missing. All its
// lines begin with prefix: any other file is left as it is (ErrNotLog), unless it is
// empty.
func OpenLog(path, prefix string) (_ *Log, err error) {
	if err := refuseMissing(path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|openNonblock, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: no regular file", path, ErrNotLog)
	}
	head := make([]byte, len(prefix))
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if n > 0 && string(head) != prefix {
		return nil, fmt.Errorf("%s: %w", path, ErrNotLog)
	}
	if n == 0 {
		if err := SyncDir(filepath.Dir(path)); err != nil {
			return nil, err
		}
	}
	return &Log{f: f}, nil
}

// refuseMissing is RefuseNew of a path where nothing is.
func refuseMissing(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return RefuseNew(path)
}

// Append adds a line with one write, while no other process does, or adds
// nothing. What a power failure left of another line is closed before.
func (l *Log) Append(line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if bytes.IndexByte(line, '\n') >= 0 {
		return errors.New("a line of a log has a line break")
	}
	if err := lockLog(l.f); err != nil {
		return fmt.Errorf("%s: %w", l.f.Name(), err)
	}
	defer unlockLog(l.f)
	st, err := l.f.Stat()
	if err != nil {
		return err
	}
	text := append(bytes.Clone(line), '\n')
	if size := st.Size(); size > 0 {
		var last [1]byte
		if _, err := l.f.ReadAt(last[:], size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			text = append([]byte{'\n'}, text...)
		}
	}
	n, err := l.f.Write(text)
	if err != nil && n > 0 {
		err = errors.Join(err, l.f.Truncate(st.Size()))
	}
	return err
}

// Stat is what the file is.
func (l *Log) Stat() (os.FileInfo, error) { return l.f.Stat() }

// Close makes all lines durable.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.f.Sync(), l.f.Close())
}
