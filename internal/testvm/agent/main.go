//go:build linux

// Agent runs inside the test machine and starts processes for the host.
package main

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"cbt/internal/testvm/wire"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

// serve returns when the host has gone or wants the machine off.
func serve() error {
	port, err := open()
	if err != nil {
		return err
	}
	a := &agent{enc: gob.NewEncoder(port), running: map[uint32]*process{}}
	a.send(wire.Message{Kind: wire.Hello})
	for dec := gob.NewDecoder(port); ; {
		var m wire.Message
		if err := dec.Decode(&m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if m.Kind == wire.Off {
			return nil
		}
		a.handle(m)
	}
}

// open finds the port by its name; there is no udev to do it.
func open() (*os.File, error) {
	for range 100 {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, name := range names {
			if b, err := os.ReadFile(name); err != nil || strings.TrimSpace(string(b)) != wire.Port {
				continue
			}
			dev := filepath.Join("/dev", filepath.Base(filepath.Dir(name)))
			// Blocking: the runtime's poller is not needed for one file.
			fd, err := syscall.Open(dev, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", dev, err)
			}
			return os.NewFile(uintptr(fd), dev), nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, errors.New("no virtio port " + wire.Port)
}

type agent struct {
	sending sync.Mutex
	enc     *gob.Encoder

	mu      sync.Mutex
	running map[uint32]*process
}

type process struct {
	pid   int
	stdin chan []byte
}

func (a *agent) send(m wire.Message) {
	a.sending.Lock()
	defer a.sending.Unlock()
	if err := a.enc.Encode(m); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func (a *agent) handle(m wire.Message) {
	if m.Kind == wire.Exec {
		a.start(m)
		return
	}
	a.mu.Lock()
	p := a.running[m.ID]
	if p != nil && m.Kind == wire.Signal {
		_ = syscall.Kill(-p.pid, syscall.Signal(m.N))
	}
	a.mu.Unlock()
	switch {
	case p == nil || p.stdin == nil:
	case m.Kind == wire.Stdin:
		p.stdin <- m.Data
	case m.Kind == wire.StdinEnd:
		close(p.stdin)
		p.stdin = nil
	}
}

// start runs a process as the leader of a session of its own.
func (a *agent) start(m wire.Message) {
	cmd := exec.Command(m.Args[0], m.Args[1:]...)
	cmd.Env = append(os.Environ(), m.Env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stdout = writer{a, m.ID, wire.Stdout}
	cmd.Stderr = writer{a, m.ID, wire.Stderr}
	// What it leaves running may hold its standard output.
	cmd.WaitDelay = 2 * time.Second
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		a.send(wire.Message{Kind: wire.Exit, ID: m.ID, N: -1, Data: []byte(err.Error())})
		return
	}
	p := &process{cmd.Process.Pid, make(chan []byte, 16)}
	a.mu.Lock()
	a.running[m.ID] = p
	a.mu.Unlock()
	go feed(stdin, p.stdin)
	go func() {
		err := cmd.Wait()
		a.mu.Lock()
		delete(a.running, m.ID)
		a.mu.Unlock()
		a.send(wire.Message{Kind: wire.Exit, ID: m.ID, N: exitCode(err, cmd.ProcessState)})
	}()
}

// feed keeps a process that reads slowly from holding up the host's other
// messages, for 16 of them.
func feed(w io.WriteCloser, from <-chan []byte) {
	var err error
	for b := range from {
		if err == nil {
			_, err = w.Write(b)
		}
	}
	w.Close()
}

func exitCode(err error, state *os.ProcessState) int {
	if state == nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		return -1
	}
	if ws := state.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

type writer struct {
	a    *agent
	id   uint32
	kind wire.Kind
}

func (w writer) Write(p []byte) (int, error) {
	for n := 0; n < len(p); n += wire.MaxData {
		w.a.send(wire.Message{Kind: w.kind, ID: w.id, Data: p[n:min(n+wire.MaxData, len(p))]})
	}
	return len(p), nil
}
