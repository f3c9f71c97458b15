//go:build !linux

package fuse

import (
	"context"

	"cbt/internal/tree"
)

// Missing says what mounting needs.
func Missing() error { return ErrUnsupported }

// Server is a mount.
type Server struct{}

// Mount is not there.
func Mount(context.Context, string, *tree.Tree, Options) (*Server, error) {
	return nil, ErrUnsupported
}

// Serve is not there.
func (*Server) Serve() {}

// Unmount is not there.
func (*Server) Unmount(bool) error { return ErrUnsupported }

// Unmount is not there.
func Unmount(context.Context, string, bool) error { return ErrUnsupported }
