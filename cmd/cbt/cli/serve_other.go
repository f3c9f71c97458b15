//go:build !unix

package cli

import (
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

func listenPrivately(path string) (*net.UnixListener, error) {
	return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
}

func inGroup(*exec.Cmd) bool { return false }

func signalCommand(cmd *exec.Cmd, _ bool, _ syscall.Signal) error { return cmd.Process.Kill() }

func awaitGroup(*exec.Cmd, time.Time) {}

func commandCode(p *os.ProcessState) int { return p.ExitCode() }
