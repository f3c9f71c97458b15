// Package testqemu runs a real QEMU for tests, with its monitor (QMP) and a
// serial console.
package testqemu

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cbt/internal/testtool"
)

// lifetime ends a machine that a test forgot about.
const lifetime = 5 * time.Minute

// Machine is a running QEMU. A method that fails ends the test.
type Machine struct {
	Dir string // its working directory
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner

	console net.Conn
	heard   strings.Builder // from the console
}

// Start runs qemu-system-x86_64 with software emulation, no default devices and
// these arguments, until the test ends.
func Start(t testing.TB, args ...string) *Machine {
	t.Helper()
	return StartProgram(t, testtool.Need(t, program), args...)
}

// StartProgram is Start with another QEMU.
func StartProgram(t testing.TB, qemu string, args ...string) *Machine {
	t.Helper()
	m := &Machine{t: t, Dir: t.TempDir()}
	args = append([]string{"-accel", "tcg", "-nodefaults", "-vga", "none", "-display", "none", "-qmp", "stdio"}, args...)
	m.cmd = command(qemu, args...)
	m.cmd.Dir, m.cmd.Stderr = m.Dir, os.Stderr
	var err error
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(lifetime, func() { m.cmd.Process.Kill() })
	t.Cleanup(func() {
		watchdog.Stop()
		m.Kill()
	})
	m.out = bufio.NewScanner(out)
	m.out.Buffer(nil, 1<<20)
	m.Do("qmp_capabilities", nil)
	return m
}

// Kill ends the machine as a power cut would.
func (m *Machine) Kill() {
	m.in.Close()
	m.cmd.Process.Kill()
	m.cmd.Wait()
	if m.console != nil {
		m.console.Close()
	}
}

// Do runs a command of the monitor and returns its result.
func (m *Machine) Do(command string, args any) map[string]any {
	m.t.Helper()
	result, _ := m.do(command, args).(map[string]any)
	return result
}

// Human runs a command of the human monitor, which must not answer.
func (m *Machine) Human(command string) {
	m.t.Helper()
	if answer, _ := m.do("human-monitor-command", map[string]any{"command-line": command}).(string); answer != "" {
		m.t.Fatalf("%s: %s", command, answer)
	}
}

func (m *Machine) do(command string, args any) any {
	m.t.Helper()
	request := map[string]any{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	if err := json.NewEncoder(m.in).Encode(request); err != nil {
		m.t.Fatal(err)
	}
	for m.out.Scan() {
		if !strings.HasPrefix(m.out.Text(), "{") {
			continue // QEMU prints what it makes of images
		}
		var reply struct {
			Return any
			Error  *struct{ Desc string }
		}
		if err := json.Unmarshal(m.out.Bytes(), &reply); err != nil {
			m.t.Fatal(err)
		}
		if reply.Error != nil {
			m.t.Fatalf("%s: %s", command, reply.Error.Desc)
		}
		if reply.Return != nil {
			return reply.Return
		}
	}
	m.t.Fatalf("%s: QEMU has ended: %v", command, m.out.Err())
	return nil
}

// Until asks until the status is want.
func (m *Machine) Until(command, want string) {
	m.t.Helper()
	for range 1200 {
		status := m.Do(command, nil)["status"]
		if status == want {
			return
		}
		if status == "failed" {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	m.t.Fatalf("%s does not become %s", command, want)
}

// Migrate writes the state of the machine to a URI such as "exec:cat>state",
// with these capabilities.
func (m *Machine) Migrate(uri string, capabilities ...string) {
	m.t.Helper()
	var list []any
	for _, c := range capabilities {
		list = append(list, map[string]any{"capability": c, "state": true})
	}
	if list != nil {
		m.Do("migrate-set-capabilities", map[string]any{"capabilities": list})
	}
	m.Do("migrate-set-parameters", map[string]any{"max-bandwidth": 1 << 32})
	m.Do("migrate", map[string]any{"uri": uri})
	m.Until("query-migrate", "completed")
}

// Memory is the first size bytes of the guest's physical memory (pmemsave).
func (m *Machine) Memory(size int) []byte {
	m.t.Helper()
	m.Do("pmemsave", map[string]any{"val": 0, "size": size, "filename": "memory"})
	b, err := os.ReadFile(filepath.Join(m.Dir, "memory"))
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

// Serial are the arguments for a console that Say and Hear talk to.
func Serial() []string {
	return []string{"-chardev", "socket,id=console,path=console.sock,server=on,wait=off", "-serial", "chardev:console"}
}

// Say writes a line to the console.
func (m *Machine) Say(line string) {
	m.t.Helper()
	m.connect()
	if _, err := io.WriteString(m.console, line+"\n"); err != nil {
		m.t.Fatal(err)
	}
}

func (m *Machine) connect() {
	m.t.Helper()
	if m.console != nil {
		return
	}
	var err error
	// The name of a socket must be short: it is reached through /proc.
	dir, err := os.Open(m.Dir)
	if err != nil {
		m.t.Fatal(err)
	}
	defer dir.Close()
	if m.console, err = net.Dial("unix", filepath.Join("/proc/self/fd", fmt.Sprint(dir.Fd()), "console.sock")); err != nil {
		m.t.Fatal(err)
	}
}

// Hear waits until the console has said a line that begins with prefix, after
// what was heard before, and returns the rest of it.
func (m *Machine) Hear(prefix string, within time.Duration) string {
	m.t.Helper()
	m.connect()
	m.console.SetReadDeadline(time.Now().Add(within))
	buf := make([]byte, 4096)
	for {
		text := m.heard.String()
		if _, after, ok := strings.Cut(text, "\n"+prefix); ok {
			if line, rest, ok := strings.Cut(after, "\n"); ok {
				m.heard.Reset()
				m.heard.WriteString("\n" + rest)
				return strings.TrimSpace(line)
			}
		}
		n, err := m.console.Read(buf)
		m.heard.Write(buf[:n])
		if err != nil {
			m.t.Fatalf("no %q on the console: %v: it said:\n%s", prefix, err, text)
		}
	}
}
