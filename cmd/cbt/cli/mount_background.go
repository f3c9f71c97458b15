package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"cbt/internal/fail"
)

// A mount in the background is this program once more, in a session of its
// own. It is told by --ready-fd which descriptor to write to when its files
// are there; until then it has our stderr, and its exit code becomes ours.

const readyWord = "ready\n"

// readyAt is the descriptor that the second process finds its pipe at.
const readyAt = 3

// errSaid is the error of a process that has already said what it is.
var errSaid = errors.New("the mount in the background failed")

// mountInBackground starts the process that mounts, with the same arguments.
func (a *app) mountInBackground(ctx context.Context, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		w.Close()
		return err
	}
	defer null.Close()
	// What follows "--" are no flags.
	args := slices.Insert(slices.Clone(a.args), 1, fmt.Sprintf("--ready-fd=%d", readyAt))
	p, err := os.StartProcess(self, append([]string{os.Args[0]}, args...), &os.ProcAttr{
		Files: []*os.File{null, null, os.Stderr, w},
		Sys:   backgroundAttr(),
	})
	w.Close()
	if err != nil {
		return err
	}
	word := make(chan string, 1)
	go func() {
		b := make([]byte, len(readyWord))
		n, _ := r.Read(b) // nothing: it ended
		word <- string(b[:n])
	}()
	select {
	case got := <-word:
		if got == readyWord {
			_ = p.Release()
			return a.sayMounted(dir)
		}
	case <-ctx.Done():
		_ = p.Signal(syscall.SIGTERM)
		<-word
	}
	state, err := p.Wait()
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	code := state.ExitCode()
	if code <= 0 {
		return fmt.Errorf("the mount in the background ended: %v", state)
	}
	return &fail.Error{Code: code, Err: errSaid}
}

// sayMounted prints where the files are.
func (a *app) sayMounted(dir string) error {
	if a.json {
		return a.result(mountedAt{dir, true})
	}
	_, err := fmt.Fprintln(a.Stdout, dir)
	return err
}

// mounted says that the files are there.
func (a *app) mounted(dir string, opt *mountOptions, log *mountLog) error {
	if opt.readyFD == 0 {
		return a.sayMounted(dir)
	}
	log.mu.Lock()
	log.mute = true
	log.mu.Unlock()
	// The terminal that started it may go away, and whoever reads what it
	// printed waits for the end of that.
	if err := detachStderr(); err != nil {
		return err
	}
	// The shell that waits for this one sends signals to others too.
	signal.Ignore(syscall.SIGPIPE)
	f := os.NewFile(uintptr(opt.readyFD), "the process that waits")
	if f == nil {
		return fail.Usage("--ready-fd %d: is no descriptor", opt.readyFD)
	}
	defer f.Close()
	_, err := f.WriteString(readyWord)
	return err
}
