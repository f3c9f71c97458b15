//go:build !linux

package hostlvm

import (
	"context"
	"errors"
)

// Disks fails with errors.ErrUnsupported.
func (*Host) Disks(context.Context) ([]*Disk, []string, error) {
	return nil, nil, errors.ErrUnsupported
}
