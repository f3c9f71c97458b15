// Package fail has the kinds of errors that a caller can act on: what the user
// asked for is wrong, something was found, a base is missing, something is in
// use. Any other error just failed.
package fail

import "fmt"

// The exit codes of every command; 128+N says that signal N ended it.
const (
	Done          = 0
	Failed        = 1
	UsageCode     = 2
	FindingsCode  = 3
	WrongBaseCode = 4
	BusyCode      = 5
	Signal        = 128
)

// Error is an error of a known kind. Code is the exit code of its kind.
type Error struct {
	Code int
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Exit returns an error with an exit code, formatted as by fmt.Errorf.
func Exit(code int, format string, args ...any) error {
	return &Error{code, fmt.Errorf(format, args...)}
}

// Usage returns an error that another request would cure, such as a mistyped name: exit code 2.
func Usage(format string, args ...any) error { return Exit(UsageCode, format, args...) }

// Findings returns an error saying that damage, faults or differences were found: exit code 3.
func Findings(format string, args ...any) error { return Exit(FindingsCode, format, args...) }

// WrongBase returns an error saying that a base or a parent is missing or is not the right one: exit code 4.
func WrongBase(format string, args ...any) error { return Exit(WrongBaseCode, format, args...) }

// Busy returns an error saying that something else holds what is needed; trying later may help: exit code 5.
func Busy(format string, args ...any) error { return Exit(BusyCode, format, args...) }
