// Package fuse shows a tree of images as a file system of this host (Linux,
// FUSE), and finds and ends such mounts.
package fuse

import "errors"

// Name is what mounts of this package are called: their type is fuse.cbt.
const Name = "cbt"

var (
	// ErrUnsupported says that this system cannot mount.
	ErrUnsupported = errors.New("mounting needs Linux")
	// ErrNoDevice says that the kernel's FUSE is not at hand.
	ErrNoDevice = errors.New("/dev/fuse cannot be used")
	// ErrNoProgram says that a user who is not root cannot mount.
	ErrNoProgram = errors.New("there is no fusermount3")
	// ErrRefused says that fusermount3 did not mount; it has printed why.
	ErrRefused = errors.New("fusermount3 refused")
	// ErrNotMounted says that nothing of this package is mounted there.
	ErrNotMounted = errors.New("not a cbt mount")
	// ErrBusy says that a mount is in use.
	ErrBusy = errors.New("in use")
)

// Options of Mount.
type Options struct {
	// Source is what the mount is of, for df and mount to show.
	Source string
	// AllowOther lets users other than the one who mounts in.
	AllowOther bool
	// Writable is for trees with files that have a Writer.
	Writable bool
	// Log is called with what goes wrong later, one line each; by several
	// goroutines at once.
	Log func(format string, args ...any)
}
