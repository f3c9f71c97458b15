package testvm

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"cbt/internal/testvm/wire"
)

// DefaultTimeout ends a command without one of its own.
const DefaultTimeout = 2 * time.Minute

// A Command is what to run in the machine: a script of busybox sh, or a
// program with arguments and no shell. It runs as root in / as the leader of a
// session of its own.
type Command struct {
	Script  string
	Args    []string // if Script is empty
	Env     []string
	Stdin   io.Reader
	Stdout  io.Writer     // Result.Stdout stays empty if set
	Timeout time.Duration // then its process group is killed; 0: DefaultTimeout, less than 0: none
}

// A Result is what is left of a command.
type Result struct {
	Exit     int // exit code, 128+N when signal N ended it
	Stdout   []byte
	Stderr   []byte
	TimedOut bool
	Elapsed  time.Duration
}

func (r Result) String() string {
	s := fmt.Sprintf("exit %d after %v", r.Exit, r.Elapsed.Round(time.Millisecond))
	if r.TimedOut {
		s += " (killed: it took too long)"
	}
	if len(r.Stdout) > 0 {
		s += fmt.Sprintf("\nstdout: %s", clip(r.Stdout))
	}
	if len(r.Stderr) > 0 {
		s += fmt.Sprintf("\nstderr: %s", clip(r.Stderr))
	}
	return s
}

func clip(b []byte) []byte {
	b = bytes.TrimSpace(b)
	return b[max(0, len(b)-maxConsole):]
}

// A Process is a command that runs.
type Process struct {
	m      *Machine
	id     uint32
	start  time.Time
	stdout io.Writer
	out    bytes.Buffer
	errOut bytes.Buffer
	result Result
	err    error
	done   chan struct{}
	timer  *time.Timer
	mu     sync.Mutex // of result.TimedOut
}

// Run runs a script and returns its standard output. The test fails if the
// script does, that is, if its last command does: "set -e" makes it any.
func (m *Machine) Run(t testing.TB, script string) string {
	t.Helper()
	r := m.Try(t, script)
	if r.Exit != 0 {
		t.Fatalf("in the test machine: %s\n%v", script, r)
	}
	return string(r.Stdout)
}

// Try runs a script that may fail.
func (m *Machine) Try(t testing.TB, script string) Result {
	t.Helper()
	r, err := m.Exec(Command{Script: script})
	if err != nil {
		t.Fatalf("in the test machine: %s\n%v", script, err)
	}
	return r
}

// Exec runs a command to its end. It gives an error if the command could not
// be started or the machine went away; a command that failed is none.
func (m *Machine) Exec(c Command) (Result, error) {
	p, err := m.Start(c)
	if err != nil {
		return Result{Exit: -1}, err
	}
	return p.Wait()
}

// Start starts a command. Wait must be called.
func (m *Machine) Start(c Command) (*Process, error) {
	args := c.Args
	if c.Script != "" {
		args = []string{"/bin/sh", "-c", c.Script}
	}
	if len(args) == 0 {
		return nil, errors.New("no command")
	}
	p := &Process{m: m, start: time.Now(), stdout: c.Stdout, done: make(chan struct{})}
	if p.stdout == nil {
		p.stdout = &p.out
	}
	m.mu.Lock()
	if m.gone != nil {
		m.mu.Unlock()
		return nil, m.gone
	}
	m.lastID++
	p.id = m.lastID
	m.processes[p.id] = p
	m.mu.Unlock()
	if err := m.send(wire.Message{Kind: wire.Exec, ID: p.id, Args: args, Env: c.Env}); err != nil {
		return nil, err
	}
	switch timeout := c.Timeout; {
	case timeout == 0:
		p.killAfter(DefaultTimeout)
	case timeout > 0:
		p.killAfter(timeout)
	}
	go p.feed(c.Stdin)
	return p, nil
}

func (p *Process) killAfter(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(d, func() {
		p.mu.Lock()
		p.result.TimedOut = true
		p.mu.Unlock()
		_ = p.Signal(syscall.SIGKILL)
	})
}

// feed sends the standard input. What the process does not want is dropped by the agent.
func (p *Process) feed(r io.Reader) {
	if r != nil {
		buf := make([]byte, wire.MaxData)
		for {
			n, err := r.Read(buf)
			if n > 0 && p.m.send(wire.Message{Kind: wire.Stdin, ID: p.id, Data: buf[:n]}) != nil {
				return
			}
			if err != nil {
				break
			}
		}
	}
	_ = p.m.send(wire.Message{Kind: wire.StdinEnd, ID: p.id})
}

// Signal sends a signal to the process and those of its group, as Ctrl-C would.
func (p *Process) Signal(sig syscall.Signal) error {
	return p.m.send(wire.Message{Kind: wire.Signal, ID: p.id, N: int(sig)})
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process.
func (p *Process) Wait() (Result, error) {
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
	return p.result, p.err
}

func (p *Process) end(exit int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.result.Exit, p.err = exit, errors.Join(p.err, err)
	p.result.Stdout, p.result.Stderr = p.out.Bytes(), p.errOut.Bytes()
	p.result.Elapsed = time.Since(p.start)
	close(p.done)
}

func (m *Machine) send(msg wire.Message) error {
	m.sending.Lock()
	defer m.sending.Unlock()
	if err := m.enc.Encode(msg); err != nil {
		return fmt.Errorf("the test machine does not listen: %w", err)
	}
	return nil
}

// receive gives what the agent says to those it is for, until it says no more.
func (m *Machine) receive(dec *gob.Decoder) error {
	for {
		var msg wire.Message
		if err := dec.Decode(&msg); err != nil {
			return err
		}
		if msg.Kind == wire.Hello {
			close(m.helloed)
			continue
		}
		m.mu.Lock()
		p := m.processes[msg.ID]
		if msg.Kind == wire.Exit {
			delete(m.processes, msg.ID)
		}
		m.mu.Unlock()
		if p == nil {
			return fmt.Errorf("unknown process %d", msg.ID)
		}
		switch msg.Kind {
		case wire.Stdout:
			if _, err := p.stdout.Write(msg.Data); err != nil {
				p.err = err
			}
		case wire.Stderr:
			p.errOut.Write(msg.Data)
		case wire.Exit:
			var err error
			if len(msg.Data) > 0 {
				err = errors.New(string(msg.Data))
			}
			p.end(msg.N, err)
		}
	}
}

// Put makes a file in the machine. Its directory must exist.
func (m *Machine) Put(name string, content io.Reader, perm os.FileMode) error {
	return m.ok(Command{
		Args:  []string{"/bin/sh", "-c", `cat >"$1" && chmod "$2" "$1"`, "sh", name, fmt.Sprintf("%o", perm.Perm())},
		Stdin: content,
	})
}

// Get copies a file, or a device, out of the machine.
func (m *Machine) Get(to io.Writer, name string) error {
	return m.ok(Command{Args: []string{"cat", name}, Stdout: to})
}

func (m *Machine) ok(c Command) error {
	r, err := m.Exec(c)
	if err == nil && r.Exit != 0 {
		err = errors.New(r.String())
	}
	if err != nil {
		return fmt.Errorf("in the test machine: %q: %w", c.Args, err)
	}
	return nil
}
