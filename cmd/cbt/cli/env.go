package cli

import (
	"io"
	"os"

	"golang.org/x/term"
)

// Env is all that a command sees of the process it runs in, so that tests
// run commands in process. The zero Getenv is an empty environment.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	StdoutTerminal bool // Stdout is a terminal: no image bytes go there
	StderrTerminal bool // Stderr is a terminal: progress is shown there
}

// System is the environment of this process.
func System() Env {
	return Env{
		Stdin:          os.Stdin,
		Stdout:         os.Stdout,
		Stderr:         os.Stderr,
		Getenv:         os.Getenv,
		StdoutTerminal: term.IsTerminal(int(os.Stdout.Fd())),
		StderrTerminal: term.IsTerminal(int(os.Stderr.Fd())),
	}
}

// stickyWriter remembers the first error of w: a help text, a table or a last
// flush that did not reach a full disk must not end with exit code 0.
type stickyWriter struct {
	w   io.Writer
	err error
}

func (s *stickyWriter) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	s.err = err
	return n, err
}
