//go:build !linux

package imagelock

import (
	"errors"
	"fmt"
	"os"
)

// Writer finds nobody.
func Writer(*os.File) (bool, error) { return false, nil }

// MachineOf finds none.
func MachineOf(*os.File) (m Machine, ok bool) { return m, false }

// HoldRead keeps nobody out.
func HoldRead(*os.File) error { return nil }

// HoldWrite keeps nobody out.
func HoldWrite(*os.File) error { return nil }

// InUse finds nobody.
func InUse(*os.File) (by string, err error) { return "", nil }

// Written finds nobody.
func Written(*os.File) (by, advice string, err error) { return "", "", nil }

// Exclusive is not to be had.
func Exclusive(f *os.File) (*os.File, error) {
	return nil, fmt.Errorf("%s: exclusively: %w", f.Name(), errors.ErrUnsupported)
}

// OpenForWriting cannot be asked.
func OpenForWriting(*os.File) (bool, error) { return false, errors.ErrUnsupported }
