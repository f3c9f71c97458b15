package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"cbt/internal/audit"
	"cbt/internal/fail"
	"cbt/internal/hostlvm"
)

// signalGrace is how long a command may take to clean up.
const signalGrace = 5 * time.Second

// WithSignals returns a context that the first SIGINT, SIGTERM, SIGHUP or
// SIGPIPE cancels, so that commands remove what they left unfinished; Run
// then returns 128+N. A second signal, or five seconds, end the process at once,
// but for metadata snapshots of thin pools, which are released before. A SIGHUP
// that was ignored from the start (nohup) stays ignored. Call stop when done.
func WithSignals(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	caught := make(chan os.Signal, 8)
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
			awaitEnd(caught, done)
			// A held snapshot keeps all that its pool frees until that is full.
			hostlvm.ReleaseAll(releaseGrace)
			audit.EndAll(fail.Signal+int(s.(syscall.Signal)), errCutShort)
			os.Exit(fail.Signal + int(s.(syscall.Signal)))
		case <-done:
		}
	}()
	return ctx, func() {
		close(done)
		cancel(nil)
	}
}

// errCutShort is the end of a run that a signal did not end in order.
var errCutShort = errors.New("ended by a signal before it was done")

// releaseGrace is how long releasing a metadata snapshot may take.
const releaseGrace = 2 * time.Second

// awaitEnd returns if the process has to be ended: walking the tables of a
// hostile image, or a system call on a dead disk, may not look at ctx for hours.
// Ending there is safe: new files have no name yet, targets are marked
// incomplete. If the command ends by itself first, it does not return. The
// hashes that --hash after asks for may take their time, up to a second signal.
//
// Further writes to a closed pipe are no further signals.
func awaitEnd(caught <-chan os.Signal, done <-chan struct{}) {
	grace := time.After(signalGrace)
	for {
		select {
		case s := <-caught:
			if s != syscall.SIGPIPE {
				return
			}
		case <-grace:
			if !audit.HashingAtEnd.Load() {
				return
			}
			grace = time.After(signalGrace)
		case <-done:
			select {} // the process is about to end
		}
	}
}
