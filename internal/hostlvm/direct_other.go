//go:build !linux

package hostlvm

import (
	"context"
	"errors"
	"fmt"

	"cbt/internal/dm"
)

// Direct is not to be had.
type Direct struct{}

// OpenDirect fails with errors.ErrUnsupported.
func OpenDirect(path string) (*Direct, error) {
	return nil, fmt.Errorf("%s: reading past the page cache: %w", path, errors.ErrUnsupported)
}

func openDirect(_ context.Context, path string) (*Direct, error) { return OpenDirect(path) }

// Name is empty.
func (*Direct) Name() string { return "" }

// Size is 0.
func (*Direct) Size() int64 { return 0 }

// Number is 0:0.
func (*Direct) Number() dm.Number { return dm.Number{} }

// ReadAt fails with errors.ErrUnsupported.
func (*Direct) ReadAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }

// Close does nothing.
func (*Direct) Close() error { return nil }
