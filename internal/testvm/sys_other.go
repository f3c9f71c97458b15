//go:build !unix

package testvm

import "errors"

func lock(string) (unlock func(), err error) { return nil, errors.ErrUnsupported }
