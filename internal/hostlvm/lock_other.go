//go:build !linux

package hostlvm

import (
	"context"
	"errors"
	"time"
)

func lockPool(context.Context, string, PoolRef, time.Duration) (*poolLock, error) {
	return nil, errors.ErrUnsupported
}
