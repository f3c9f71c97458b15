package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"cbt/internal/hostlvm"
)

// signalGrace is how long a command may take to clean up.
const signalGrace = 5 * time.Second

// WithSignals returns a context that the first SIGINT, SIGTERM, SIGHUP or
// SIGPIPE cancels, so that commands remove what they left unfinished; Run
// then returns 128+N. A second signal, or five seconds, end the process at once. A SIGHUP that
// was ignored from the start (nohup) stays ignored. Call stop when done.
func WithSignals(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	caught := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE} {
		if !signal.Ignored(s) {
			signal.Notify(caught, s)
		}
	}
	done := make(chan struct{})
	go func() {
		select {
		case s := <-caught:
			cancel(&signalError{s})
			// SIGPIPE stays caught: a later write to the closed pipe must
			// not end the process before it has cleaned up.
			signal.Reset(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			// Walking the tables of a hostile image, or a system call on a
			// dead disk, may not look at ctx for hours. Ending here is safe:
			// new files have no name yet, targets are marked incomplete.
			select {
			case <-time.After(signalGrace):
				// A metadata snapshot that stays held grows until its pool is full.
				hostlvm.ReleaseAll(signalGrace)
				os.Exit(exitSignal + int(s.(syscall.Signal)))
			case <-done:
			}
		case <-done:
		}
	}()
	return ctx, func() {
		close(done)
		cancel(nil)
	}
}
