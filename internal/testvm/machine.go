package testvm

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cbt/internal/testtool"
	"cbt/internal/testvm/wire"
)

const (
	bootTimeout = 3 * time.Minute // an idle machine needs a few seconds
	offTimeout  = time.Minute
	maxConsole  = 4096 // bytes of the console that an error shows
)

// Options say what a machine has.
type Options struct {
	Disks    []Disk            // /dev/vda, /dev/vdb, ... in this order; at most 26
	Files    map[string]string // path in the machine: file of this machine, which keeps its permissions and brings its libraries
	Programs []string          // further programs of this machine, by name, with their libraries
	Modules  []string          // further kernel modules that modprobe will find
	Memory   int               // MiB; 0: 768. /tmp may fill half of it
	CPUs     int               // 0: 1
}

// A Disk is a file that the machine has as a disk. Discards make holes in it.
type Disk struct {
	Path     string
	Format   string // of QEMU; "": raw
	ReadOnly bool
	Sector   int // logical sector size in bytes; 0: 512
	IOPS     int // reads and writes a second at most; 0: no limit
}

// A Machine is a test machine that runs. Its methods are safe for concurrent
// use: commands run side by side.
type Machine struct {
	dir     string
	qemu    *exec.Cmd
	stdin   io.WriteCloser
	errOut  bytes.Buffer // of QEMU; to be read after ended
	ended   chan struct{}
	waitErr error // of QEMU; to be read after ended
	helloed chan struct{}

	sending sync.Mutex
	enc     *gob.Encoder

	mu        sync.Mutex
	lastID    uint32
	processes map[uint32]*Process
	gone      error  // why no further process can start
	console   string // its end, once the file is no more
}

// Need skips a test where something is missing that the machine is made of,
// or fails it where testtool.RequireEnv is set to "1".
func Need(t testing.TB, more ...string) {
	t.Helper()
	for _, name := range slices.Concat([]string{"qemu-system-x86_64", "busybox", "ldd", "go"}, programs, more) {
		testtool.Need(t, name)
	}
	if _, err := kernel(); err != nil {
		testtool.Missing(t, fmt.Sprintf("no kernel for the test machine: %v", err))
	}
}

// Start boots a machine, of which it Needs all parts, and kills it when the
// test ends.
func Start(t testing.TB, opt Options) *Machine {
	t.Helper()
	Need(t, opt.Programs...)
	m, err := Boot(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the test machine's console ended with:\n%s", m.Console())
		}
		m.Kill()
	})
	return m
}

// Boot boots a machine for a program. Shutdown or Kill must be called in the end.
func Boot(opt Options) (m *Machine, err error) {
	dir, err := os.MkdirTemp("", "cbt-testvm-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	qemu, ok := testtool.Find("qemu-system-x86_64")
	if !ok {
		return nil, missing("qemu-system-x86_64")
	}
	kernelDir, err := kernel()
	if err != nil {
		return nil, err
	}
	kernels, _ := filepath.Glob(filepath.Join(kernelDir, "boot", "vmlinuz-*"))
	if len(kernels) != 1 {
		return nil, fmt.Errorf("%s: %d kernels, want 1", kernelDir, len(kernels))
	}
	agent, initramfs := filepath.Join(dir, "agent"), filepath.Join(dir, "initramfs")
	if err := buildAgent(agent); err != nil {
		return nil, err
	}
	if err := writeInitramfs(initramfs, kernelDir, agent, opt); err != nil {
		return nil, err
	}
	m = &Machine{
		dir: dir, ended: make(chan struct{}), helloed: make(chan struct{}), processes: map[uint32]*Process{},
	}
	if err := m.run(qemu, qemuArgs(dir, kernels[0], initramfs, opt)); err != nil {
		return nil, err
	}
	select {
	case <-m.helloed:
	case <-m.ended:
		err = fmt.Errorf("the test machine ended while it booted: %v: %s\n%s", m.waitErr, m.errOut.String(), m.Console())
	case <-time.After(bootTimeout):
		err = fmt.Errorf("the test machine did not boot within %v:\n%s", bootTimeout, m.Console())
	}
	if err != nil {
		m.Kill()
		return nil, err
	}
	os.Remove(agent)
	os.Remove(initramfs) // QEMU has read it
	return m, nil
}

func missing(name string) error { return fmt.Errorf("%s is not installed", name) }

func buildAgent(to string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", to, "cbt/internal/testvm/agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build of the agent: %w: %s", err, out)
	}
	return nil
}

// qemuArgs has the agent on QEMU's standard input and output, so that it ends
// with this process, and the console in a file.
func qemuArgs(dir, kernel, initramfs string, opt Options) []string {
	memory, cpus := opt.Memory, opt.CPUs
	if memory == 0 {
		memory = 768
	}
	args := []string{
		"-accel", "tcg", "-cpu", "max", "-smp", fmt.Sprint(max(cpus, 1)), "-m", fmt.Sprint(memory),
		"-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", kernel, "-initrd", initramfs,
		"-append", "console=ttyS0 panic=-1 loglevel=4 mitigations=off nokaslr tsc=reliable random.trust_cpu=on",
		"-serial", "file:" + filepath.Join(dir, "console"),
		"-device", "virtio-serial-pci",
		"-chardev", "stdio,id=agent,signal=off",
		"-device", "virtserialport,chardev=agent,name=" + wire.Port,
	}
	for i, d := range opt.Disks {
		args = append(args, d.args(i)...)
	}
	return args
}

// args makes the i-th disk of three or four parts, the upper naming the lower.
func (d Disk) args(i int) []string {
	format, sector, state := d.Format, d.Sector, "discard=unmap,cache.no-flush=on,read-only=off"
	if format == "" {
		format = "raw"
	}
	if sector == 0 {
		sector = 512
	}
	if d.ReadOnly {
		state = strings.TrimSuffix(state, "off") + "on"
	}
	top := fmt.Sprintf("d%d", i)
	args := []string{
		"-blockdev", fmt.Sprintf("driver=file,node-name=f%d,filename=%s,%s", i, escape(d.Path), state),
		"-blockdev", fmt.Sprintf("driver=%s,node-name=%s,file=f%d,%s", format, top, i, state),
	}
	if d.IOPS > 0 {
		args = append(args, "-object", fmt.Sprintf("throttle-group,id=g%d,x-iops-total=%d", i, d.IOPS),
			"-blockdev", fmt.Sprintf("driver=throttle,node-name=t%d,throttle-group=g%d,file=%s,%s", i, i, top, state))
		top = fmt.Sprintf("t%d", i)
	}
	return append(args, "-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%d,logical_block_size=%d,physical_block_size=%d", top, i, sector, sector))
}

// escape is for names in QEMU's options: two commas mean one.
func escape(name string) string { return strings.ReplaceAll(name, ",", ",,") }

// run starts QEMU and reads what the agent says.
func (m *Machine) run(name string, args []string) error {
	m.qemu = exec.Command(name, args...)
	m.qemu.Stderr = &m.errOut
	stdin, err := m.qemu.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := m.qemu.StdoutPipe()
	if err != nil {
		return err
	}
	m.stdin, m.enc = stdin, gob.NewEncoder(stdin)
	if err := m.qemu.Start(); err != nil {
		return err
	}
	go func() {
		err := m.receive(gob.NewDecoder(stdout))
		m.lost(fmt.Errorf("the test machine went away: %w", err))
		_, _ = io.Copy(io.Discard, stdout)
		m.waitErr = m.qemu.Wait()
		close(m.ended)
	}()
	return nil
}

// lost ends all processes, which can say no more.
func (m *Machine) lost(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = err
	for id, p := range m.processes {
		delete(m.processes, id)
		p.end(-1, err)
	}
}

// Console is the end of what kernel and agent wrote to the console.
func (m *Machine) Console() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, err := os.ReadFile(filepath.Join(m.dir, "console")); err == nil {
		m.console = string(b[max(0, len(b)-maxConsole):])
	}
	return m.console
}

// Shutdown unmounts all, deactivates all volume groups, so that their metadata
// is complete, writes all to the disks and switches the machine off.
func (m *Machine) Shutdown() error {
	r, err := m.Exec(Command{Script: `
		umount -a -r -t ext4,xfs,ext2,btrfs,vfat
		[ -z "$(vgs --noheadings -o name)" ] || vgchange -an
		sync`, Timeout: offTimeout})
	if err == nil && r.Exit != 0 {
		err = fmt.Errorf("deactivate: exit %d: %s", r.Exit, r.Stderr)
	}
	if err == nil {
		err = m.send(wire.Message{Kind: wire.Off})
	}
	if err == nil {
		select {
		case <-m.ended:
			err = m.waitErr
		case <-time.After(offTimeout):
			err = errors.New("the machine did not switch off")
		}
	}
	m.Kill()
	if err != nil {
		return fmt.Errorf("shutdown of the test machine: %w", err)
	}
	return nil
}

// Kill ends the machine at once, as a power failure would. What it had written
// to its disks is in their files. A machine that ended already may be killed.
func (m *Machine) Kill() {
	_ = m.qemu.Process.Kill()
	<-m.ended
	m.Console()
	os.RemoveAll(m.dir)
}
