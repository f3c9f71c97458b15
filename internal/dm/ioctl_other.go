//go:build !linux

package dm

import (
	"errors"
	"fmt"
	"os"
)

const (
	cmdVersion = iota
	cmdListDevices
	cmdDevStatus
	cmdTableStatus
	cmdTargetMsg
)

func openControl() (*os.File, error) {
	return nil, fmt.Errorf("device-mapper: %w on this system", errors.ErrUnsupported)
}

func (*Control) run(op string, _ uint, req request) (header, []byte, error) {
	return header{}, nil, &Error{Op: op, Device: req.name + req.uuid, Err: errors.ErrUnsupported}
}
