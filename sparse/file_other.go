//go:build !linux

package sparse

import (
	"errors"
	"fmt"
	"os"
)

// On systems other than linux a file is all data, zeros are written, and block devices are refused.

func deviceSize(f *os.File) (int64, error) {
	return 0, fmt.Errorf("%s: a block device: %w on this system", f.Name(), errors.ErrUnsupported)
}

func syncForMap(*os.File) (bool, error) { return false, nil }

func (v *Raw) nextData(pos int64) (data, hole int64, err error) { return pos, v.size, nil }

func flagsForTarget(*os.File) error { return nil }

func punchHole(*os.File, int64, int64) (bool, error) { return false, nil }

func zeroDevice(*os.File, int64, int64) (bool, error) { return false, nil }

func deviceBlock(*os.File) (int64, error) { return 512, nil }
