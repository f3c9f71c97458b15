package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"cbt/internal/fail"
	"cbt/internal/ordered"
	"cbt/internal/outfile"
	"cbt/internal/text"
	"cbt/lvm/thin"
	"cbt/sparse"
)

// report prints err as one line, or as a JSON object, and returns the exit
// code of the whole run.
func (a *app) report(ctx context.Context, err error) int {
	if err == nil {
		return fail.Done
	}
	code := a.exitCode(ctx, err)
	if code == fail.Signal+int(syscall.SIGPIPE) && !a.verbose {
		return code // the reader has gone: there is nobody to tell
	}
	if _, ran := err.(*commandError); ran && !a.verbose {
		return code // the command has said why
	}
	if errors.Is(err, errSaid) {
		return code
	}
	msg := text.OneLine(err.Error())
	if a.nagios && code < fail.Signal {
		fmt.Fprintf(a.Stdout, "CBT UNKNOWN - %s\n", strings.ReplaceAll(msg, "|", "_"))
		return nagiosUnknown
	}
	if errors.Is(err, thin.ErrNoData) {
		msg += " (--thin-data names them)"
	}
	if code > fail.Signal {
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
		return fail.Signal + int(syscall.SIGPIPE)
	}
	var sig *signalError
	if errors.As(context.Cause(ctx), &sig) {
		if n, ok := sig.signal.(syscall.Signal); ok {
			return fail.Signal + int(n)
		}
	}
	var coded *fail.Error
	var ran *commandError
	switch {
	case errors.Is(err, outfile.ErrNoDevice):
		return fail.UsageCode // its name is mistyped, most often
	case errors.As(err, &coded):
		return coded.Code
	case errors.As(err, &ran):
		return ran.code
	case errors.As(err, new(*sparse.MissingError)):
		return fail.WrongBaseCode
	case errors.Is(err, thin.ErrNoData), !a.started:
		return fail.UsageCode // --thin-data was missing; or cobra's own checks of flags and arguments
	}
	return fail.Failed
}

// stdoutGone reports that whoever read standard output closed it.
func (a *app) stdoutGone() bool {
	s, ok := a.Stdout.(*stickyWriter)
	return ok && errors.Is(s.err, syscall.EPIPE)
}

// signalError is why a context was cancelled.
type signalError struct{ signal os.Signal }

func (e *signalError) Error() string { return e.signal.String() }

// Signal returns the signal.
func (e *signalError) Signal() os.Signal { return e.signal }
