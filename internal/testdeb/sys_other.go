//go:build !unix

package testdeb

import "errors"

func lock(string) (unlock func(), err error) { return nil, errors.ErrUnsupported }
