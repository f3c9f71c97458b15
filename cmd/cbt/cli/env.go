package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"sync"

	"golang.org/x/term"

	"cbt/internal/ordered"
)

// Env is all that a command sees of the process it runs in, so that tests
// run commands in process. The zero Getenv is an empty environment.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	StdoutTerminal bool // Stdout is a terminal: no image bytes go there
	StdoutClosed   bool // Stdout was closed, or may have been: no delta goes there
	StderrTerminal bool // Stderr is a terminal: progress is shown there
}

// System is the environment of this process.
func System() Env {
	return Env{
		Stdin:          os.Stdin,
		Stdout:         os.Stdout,
		StdoutClosed:   wasClosed(os.Stdout),
		Stderr:         os.Stderr,
		Getenv:         os.Getenv,
		StdoutTerminal: term.IsTerminal(int(os.Stdout.Fd())),
		StderrTerminal: term.IsTerminal(int(os.Stderr.Fd())),
	}
}

// keepsStdout refuses to make a delta or a dump that nobody would keep. Go puts
// /dev/null in the place of a stdout that was closed when the program started;
// who opened it so himself, as some do for programs in the background, is told
// the same.
func (a *app) keepsStdout() error {
	if a.StdoutClosed {
		return errors.New("-o -: stdout is closed, or is /dev/null")
	}
	return nil
}

// stickyWriter remembers the first error of w: a help text, a table or a last
// flush that did not reach a full disk must not end with exit code 0. A write
// that nobody reads ends when ctx does; what was to be written may then still
// be used.
type stickyWriter struct {
	ctx context.Context
	w   io.Writer
	err error
	own []byte // what is being written

	mu  sync.Mutex // of what follows
	sum hash.Hash  // of what was written; nil: nobody asked
	n   int64
	cut bool // more was to be written
}

func (s *stickyWriter) Write(p []byte) (n int, err error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.ctx.Done() == nil {
		n, err = s.w.Write(p)
	} else {
		n, err = s.writeUntilDone(p)
	}
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	s.err = err
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sum != nil {
		s.sum.Write(p[:n])
	}
	s.n += int64(n)
	s.cut = s.cut || err != nil
	return n, err
}

// Written is what was written so far, and whether that is all that was to be.
func (s *stickyWriter) Written() (n int64, sum string, whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n, hex.EncodeToString(s.sum.Sum(nil)), !s.cut
}

func (s *stickyWriter) writeUntilDone(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	s.own = append(s.own[:0], p...) // the caller's is used again if this write is given up
	p = s.own
	written := make(chan result, 1)
	go func() {
		var r result
		defer func() { written <- r }()
		defer ordered.Caught(&r.err)
		r.n, r.err = s.w.Write(p)
	}()
	select {
	case r := <-written:
		return r.n, r.err
	case <-s.ctx.Done():
		return 0, context.Cause(s.ctx)
	}
}
