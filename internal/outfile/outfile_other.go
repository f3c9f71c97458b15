//go:build !linux

package outfile

import (
	"context"
	"errors"
	"os"
	"time"
)

const (
	noFollow     = 0
	canLock      = false
	openNonblock = 0
)

func createUnnamed(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func unnamedPath(f *os.File) string { return f.Name() }

func linkUnnamed(*os.File, string) error { return errors.ErrUnsupported }

func renameNew(temp, path string) error { return linkNew(temp, path) }

// RefuseNew refuses nothing.
func RefuseNew(string) error { return nil }

// Lock keeps nobody out.
func Lock(*os.File) error { return nil }

// SyncDir does nothing: only Linux is promised that names are durable.
func SyncDir(string) error { return nil }

// LockDir locks nothing: only Linux is promised that runs keep apart.
func LockDir(_ context.Context, dir string, _ bool, _ time.Duration) (*os.File, error) {
	return nil, &os.PathError{Op: "lock", Path: dir, Err: errors.ErrUnsupported}
}

// Elsewhere one write with O_APPEND has to do.
func lockLog(*os.File) error { return nil }

func unlockLog(*os.File) {}
