// Package tool runs the real programs that the tests and benchmarks below
// fuzz and bench drive: cbt itself as a process, qemu-img and qemu-io.
package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Timeout ends a program that hangs. No input here is large enough for a
// healthy program to need a tenth of it.
const Timeout = 2 * time.Minute

// Result is what is left of a program that ran.
type Result struct {
	Exit    int // exit code, 128+N when signal N ended it, -1 when it hung or did not start
	Stdout  []byte
	Stderr  []byte
	Elapsed time.Duration
	MaxRSS  int64 // bytes
}

// Failed is true for every exit code but 0.
func (r Result) Failed() bool { return r.Exit != 0 }

// Message is stderr as one line, for reports.
func (r Result) Message() string {
	s := strings.Join(strings.Fields(string(r.Stderr)), " ")
	if len(s) > 400 {
		s = s[:400] + "..."
	}
	return s
}

// Cmd is one run of a program. The zero value of each field is the default.
type Cmd struct {
	Dir    string
	Env    []string // added to the environment
	Stdin  io.Reader
	Stdout io.Writer // Result.Stdout stays empty when set
}

// Run runs a program to its end.
func (c Cmd) Run(name string, args ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Dir, c.Stdin, c.Stdout, &stderr
	if c.Stdout == nil {
		cmd.Stdout = &stdout
	}
	cmd.Env = append(append(os.Environ(), "LC_ALL=C"), c.Env...)
	start := time.Now()
	err := cmd.Run()
	r := Result{Stdout: stdout.Bytes(), Stderr: stderr.Bytes(), Elapsed: time.Since(start)}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		r.Exit = -1
		r.Stderr = append(r.Stderr, fmt.Sprintf("no end within %v", Timeout)...)
	case errors.As(err, &exit):
		r.Exit = ExitCode(exit.ProcessState)
	case err != nil:
		r.Exit = -1
		r.Stderr = append(r.Stderr, err.Error()...)
	}
	if cmd.ProcessState != nil {
		r.MaxRSS = maxRSS(cmd.ProcessState)
	}
	return r
}

// Binary gives the path of the cbt binary: path, else $CBT, else one built
// into dir from the module the caller's working directory is in.
func Binary(path, dir string) (string, error) {
	if path == "" {
		path = os.Getenv("CBT")
	}
	if path != "" {
		return filepath.Abs(path)
	}
	bin := filepath.Join(dir, "cbt")
	r := Cmd{Env: []string{"CGO_ENABLED=0"}}.Run("go", "build", "-o", bin, "cbt/cmd/cbt")
	if r.Failed() {
		return "", fmt.Errorf("go build cbt/cmd/cbt: %s", r.Message())
	}
	return bin, nil
}
