//go:build !linux

package main

import (
	"errors"
	"os"
)

func open(name string, direct bool) (*os.File, error) {
	if direct {
		return nil, errors.New("O_DIRECT is only known for Linux")
	}
	return os.Open(name)
}
