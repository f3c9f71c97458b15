package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"cbt/internal/ordered"
	"cbt/internal/outfile"
	"cbt/lvm/thin"
	"cbt/sparse"
)

// The exit codes of every command; 128+N says that signal N ended it.
const (
	exitDone      = 0
	exitFailed    = 1
	exitUsage     = 2
	exitFindings  = 3
	exitWrongBase = 4
	exitBusy      = 5
	exitSignal    = 128
)

// exitError is an error that knows its exit code. Any other error is 1.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exitf(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

// usageErrorf is for what another command line would cure: exit 2.
func usageErrorf(format string, args ...any) error { return exitf(exitUsage, format, args...) }

// findings says that damage, faults or differences were found: exit 3.
func findings(format string, args ...any) error { return exitf(exitFindings, format, args...) }

// wrongBase says that a base or a parent is missing or another one: exit 4.
func wrongBase(format string, args ...any) error { return exitf(exitWrongBase, format, args...) }

// busy says that somebody else holds what is needed: exit 5.
func busy(format string, args ...any) error { return exitf(exitBusy, format, args...) }

// report prints err as one line, or as a JSON object, and returns the exit
// code of the whole run.
func (a *app) report(ctx context.Context, err error) int {
	if err == nil {
		return exitDone
	}
	code := a.exitCode(ctx, err)
	if code == exitSignal+int(syscall.SIGPIPE) && !a.verbose {
		return code // the reader has gone: there is nobody to tell
	}
	if _, ran := err.(*commandError); ran && !a.verbose {
		return code // the command has said why
	}
	if errors.Is(err, errSaid) {
		return code
	}
	msg := oneLine(err.Error())
	if a.nagios && code < exitSignal {
		fmt.Fprintf(a.Stdout, "CBT UNKNOWN - %s\n", strings.ReplaceAll(msg, "|", "_"))
		return nagiosUnknown
	}
	if errors.Is(err, thin.ErrNoData) {
		msg += " (--thin-data names them)"
	}
	if code > exitSignal {
		msg = "ended by a signal: " + msg
	}
	var stack []byte
	var bug *ordered.PanicError
	if a.verbose && errors.As(err, &bug) {
		stack = bug.Stack
	}
	if a.json {
		a.object(failure{Error: msg, Exit: code, Stack: string(stack)})
	} else {
		fmt.Fprintf(a.Stderr, "cbt: %s\n%s", strings.TrimPrefix(msg, "cbt: "), stack)
	}
	return code
}

func (a *app) exitCode(ctx context.Context, err error) int {
	if a.stdoutGone() {
		return exitSignal + int(syscall.SIGPIPE)
	}
	var sig *signalError
	if errors.As(context.Cause(ctx), &sig) {
		if n, ok := sig.signal.(syscall.Signal); ok {
			return exitSignal + int(n)
		}
	}
	var coded *exitError
	var ran *commandError
	switch {
	case errors.Is(err, outfile.ErrNoDevice):
		return exitUsage // its name is mistyped, most often
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &ran):
		return ran.code
	case errors.As(err, new(*sparse.MissingError)):
		return exitWrongBase
	case errors.Is(err, thin.ErrNoData), !a.started:
		return exitUsage // --thin-data was missing; or cobra's own checks of flags and arguments
	}
	return exitFailed
}

// stdoutGone reports that whoever read standard output closed it.
func (a *app) stdoutGone() bool {
	s, ok := a.Stdout.(*stickyWriter)
	return ok && errors.Is(s.err, syscall.EPIPE)
}

// signalError is why a context was cancelled.
type signalError struct{ signal os.Signal }

func (e *signalError) Error() string { return e.signal.String() }
