package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// WithSignals returns a context that the first SIGINT, SIGTERM, SIGHUP or
// SIGPIPE cancels, so that commands remove what they left unfinished; Run
// then returns 128+N. A second signal ends the process at once. A SIGHUP that
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
		case <-done:
		}
	}()
	return ctx, func() {
		close(done)
		cancel(nil)
	}
}
