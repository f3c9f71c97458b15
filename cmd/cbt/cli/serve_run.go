package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// commandGrace is how long the command of --run may take to end on a signal.
const commandGrace = 2 * time.Second

// commandError is that the command of --run ended with another exit code than
// 0. It said why, if anybody did.
type commandError struct{ code int }

func (e *commandError) Error() string {
	return fmt.Sprintf("the command ended with exit code %d", e.code)
}

// runCommand runs a command by the shell until it ends. When ctx ends, the
// signal that ended it goes to the command and all that it started, and none of
// that is left when runCommand returns.
func (a *app) runCommand(ctx context.Context, command string, env []string) error {
	cmd := exec.Command("sh", "-c", command)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.Stdin, a.Stdout, a.Stderr
	if s, ok := a.Stdout.(*stickyWriter); ok {
		cmd.Stdout = s.w // a terminal stays one
	}
	cmd.WaitDelay = commandGrace
	grouped := inGroup(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("--run: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return commandResult(cmd, err)
	case <-ctx.Done():
	}
	deadline := time.Now().Add(commandGrace)
	// Errors here are that there is nobody to signal any more.
	_ = signalCommand(cmd, grouped, signalOf(ctx))
	select {
	case <-ended:
	case <-time.After(commandGrace):
		_ = signalCommand(cmd, grouped, syscall.SIGKILL)
		<-ended
	}
	if grouped {
		awaitGroup(cmd, deadline)
	}
	return context.Cause(ctx)
}

func commandResult(cmd *exec.Cmd, err error) error {
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return &commandError{commandCode(exit.ProcessState)}
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return fmt.Errorf("--run: %w", err)
	}
	return nil
}

// signalOf is the signal that ended ctx.
func signalOf(ctx context.Context) syscall.Signal {
	var sig *signalError
	if errors.As(context.Cause(ctx), &sig) {
		if s, ok := sig.signal.(syscall.Signal); ok {
			return s
		}
	}
	return syscall.SIGTERM
}
