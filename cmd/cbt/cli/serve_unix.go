//go:build unix

package cli

import (
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/term"

	"cbt/internal/fail"
)

// listenPrivately makes a socket of mode 0600. Nothing else runs yet that makes
// files, which the changed umask would be for as well.
func listenPrivately(path string) (*net.UnixListener, error) {
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
}

// inGroup has cmd run in a process group of its own, which signals can be sent
// to. At a terminal it stays in that of cbt: only so can it read the terminal,
// and a Ctrl-C there reaches it anyway.
func inGroup(cmd *exec.Cmd) (grouped bool) {
	if in, ok := cmd.Stdin.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		return false
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return true
}

// signalCommand sends a signal to cmd, and to all that it started if it has a
// group.
func signalCommand(cmd *exec.Cmd, grouped bool, s syscall.Signal) error {
	if grouped {
		return syscall.Kill(-cmd.Process.Pid, s)
	}
	return cmd.Process.Signal(s)
}

// awaitGroup waits until nothing is left of the group of cmd, and does not wait
// for ever.
func awaitGroup(cmd *exec.Cmd, until time.Time) {
	for syscall.Kill(-cmd.Process.Pid, 0) == nil {
		if time.Now().After(until) {
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// commandCode is the exit code of what has ended: 128+N if signal N ended it.
func commandCode(p *os.ProcessState) int {
	if ws, ok := p.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return fail.Signal + int(ws.Signal())
	}
	return p.ExitCode()
}
