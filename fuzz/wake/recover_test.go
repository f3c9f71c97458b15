package wake

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cbt/fuzz/tool"
	"cbt/internal/testqemu"
	"cbt/internal/testtool"
	"cbt/internal/testvm"
)

// bootInit brings up the disk that the system is on, and goes on there.
const bootInit = `
mount -t devtmpfs dev /dev
modprobe virtio_pci; modprobe virtio_blk; modprobe ext4
mount -t ext4 /dev/vda /mnt || echo "no disk"
mount --move /dev /mnt/dev
exec switch_root /mnt /sbin/init
`

// systemInit is the first process of that system.
const systemInit = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
echo
echo "ready:"
while read command name text; do
	case $command in
	read) echo "answer: $(cat /data/$name)" ;;
	write) echo $text >/data/$name; sync; echo "done:" ;;
	off) mount -o remount,ro / && echo "off:"; poweroff -f ;;
	esac
done
`

// system is a machine whose whole system is on its disk.
type system struct{ *guest }

// newSystem makes a chain of a full delta and two increments: d0, d1 and d2 of
// the disk, each with one file more.
func newSystem(t *testing.T) *system {
	t.Helper()
	for _, name := range []string{"qemu-system-x86_64", "mkfs.ext4", "e2fsck", "debugfs", "nbdcopy", "busybox"} {
		testtool.Need(t, name)
	}
	s := &system{guest: &guest{t: t, dir: t.TempDir(), memory: 128}}
	s.kernel, s.initrd = testvm.Small(t, bootInit, "virtio_pci", "virtio_blk", "ext4", "crc32c_generic")
	var err error
	if s.cbt, err = tool.Binary(os.Getenv("CBT"), s.guest.dir); err != nil {
		t.Fatal(err)
	}
	root, chain := s.path("root"), s.path("chain")
	for _, dir := range []string{"bin", "sbin", "dev", "proc", "data"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, _ := testtool.Find("busybox")
	s.run("cp", busybox, filepath.Join(root, "bin", "busybox"))
	s.run("ln", "-s", "busybox", filepath.Join(root, "bin", "sh"))
	if err := os.WriteFile(filepath.Join(root, "sbin", "init"), []byte(systemInit), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(chain, 0o755); err != nil {
		t.Fatal(err)
	}
	mkfs, _ := testtool.Find("mkfs.ext4")
	debugfs, _ := testtool.Find("debugfs")
	s.run("truncate", "-s", "256M", s.path("d0.raw"))
	s.run(mkfs, "-q", "-F", "-d", root, s.path("d0.raw"))
	s.run(s.cbt, "diff", "--full", s.path("d0.raw"), "-o", filepath.Join(chain, "d0.cbt"))
	for i := 1; i <= 2; i++ {
		old, disk := s.path(fmt.Sprintf("d%d.raw", i-1)), s.path(fmt.Sprintf("d%d.raw", i))
		s.run("cp", "--sparse=always", old, disk)
		note := s.path("note")
		if err := os.WriteFile(note, []byte(s.note(i)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		s.run(debugfs, "-w", "-R", fmt.Sprintf("write %s data/note%d", note, i), disk)
		s.run(s.cbt, "diff", old, disk, "-o", filepath.Join(chain, fmt.Sprintf("d%d.cbt", i)))
	}
	return s
}

func (s *system) note(i int) string { return fmt.Sprintf("of-increment-%d", i) }

// serve runs cbt serve for the last point of the chain until stop is called.
func (s *system) serve(socket string, more ...string) (stop func()) {
	s.t.Helper()
	cmd := exec.Command(s.cbt, append([]string{"serve", s.path("chain/d2.cbt"), "--socket", socket}, more...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { cmd.Process.Kill() })
	if !bufio.NewScanner(out).Scan() {
		s.t.Fatal("cbt serve is never ready")
	}
	return func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if cmd.Wait(); cmd.ProcessState.ExitCode() != 128+int(syscall.SIGTERM) {
			s.t.Errorf("cbt serve ends with %v", cmd.ProcessState)
		}
	}
}

// boot starts the system on a disk, given as QEMU's driver and its options.
func (s *system) boot(driver string) *testqemu.Machine {
	s.t.Helper()
	m := testqemu.Start(s.t, append([]string{
		"-M", "pc", "-m", "128", "-kernel", s.kernel, "-initrd", s.initrd, "-no-shutdown",
		"-append", "console=ttyS0 panic=-1 quiet mitigations=off nokaslr tsc=reliable random.trust_cpu=on",
		"-blockdev", "driver=raw,node-name=disk," + driver, "-device", "virtio-blk-pci,drive=disk",
	}, testqemu.Serial()...)...)
	m.Hear("ready:", patience)
	return m
}

// off shuts the system down.
func (s *system) off(m *testqemu.Machine) {
	s.t.Helper()
	m.Say("off")
	m.Hear("off:", patience)
	m.Until("query-status", "shutdown")
	m.Kill()
}

// hashes are those of all deltas.
func (s *system) hashes() (list []string) {
	s.t.Helper()
	names, _ := filepath.Glob(s.path("chain/*.cbt"))
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			s.t.Fatal(err)
		}
		st, _ := os.Stat(name)
		list = append(list, fmt.Sprintf("%s %x %v", name, sha256.Sum256(b), st.ModTime()))
	}
	return list
}

// TestInstantRecovery boots a machine out of a chain that nobody restored.
func TestInstantRecovery(t *testing.T) {
	s := newSystem(t)
	before := s.hashes()
	socket, overlay := filepath.Join(t.TempDir(), "s"), s.path("overlay")
	disk := "file.driver=nbd,file.server.type=unix,file.server.path=" + socket

	// At most ten seconds later than from the raw image. Emulated machines are
	// slow, so one pair of boots in three has to be good enough.
	var raw, late time.Duration
	var m *testqemu.Machine
	var stop func()
	for try := 1; ; try++ {
		start := time.Now()
		from := s.boot("file.driver=file,file.filename=" + s.path("d2.raw"))
		raw = time.Since(start)
		s.off(from)
		start = time.Now()
		stop = s.serve(socket, "--overlay", overlay)
		m = s.boot(disk)
		late = time.Since(start) - raw
		t.Logf("ready after %.1f s from the raw image, after %.1f s from the chain", raw.Seconds(), (raw + late).Seconds())
		if late <= 10*time.Second {
			break
		}
		if try == 3 {
			t.Fatal("ten seconds are the limit")
		}
		s.off(m)
		stop()
		os.Remove(overlay)
	}

	// It works.
	for i := 1; i <= 2; i++ {
		m.Say(fmt.Sprintf("read note%d", i))
		if got := m.Hear("answer:", patience); got != s.note(i) {
			t.Errorf("note %d is %q", i, got)
		}
	}
	m.Say("write report all-is-well")
	m.Hear("done:", patience)
	s.off(m)
	stop()

	// What it wrote is in the overlay, and only there.
	for i, hash := range s.hashes() {
		if hash != before[i] {
			t.Errorf("was %s, is %s", before[i], hash)
		}
	}
	after, e2fsck, debugfs := s.path("after.raw"), "e2fsck", "debugfs"
	e2fsck, _ = testtool.Find(e2fsck)
	debugfs, _ = testtool.Find(debugfs)
	s.run(s.cbt, "serve", s.path("chain/d2.cbt"), "--overlay", overlay, "--run", `nbdcopy "$uri" `+after)
	s.run(e2fsck, "-fn", after)
	for name, want := range map[string]string{"report": "all-is-well", "note1": s.note(1), "note2": s.note(2)} {
		if got := s.run(debugfs, "-R", "cat data/"+name, after); !strings.Contains(got, want+"\n") {
			t.Errorf("data/%s is %q", name, got)
		}
	}
	s.run(s.cbt, "serve", s.path("chain/d2.cbt"), "--run", `nbdcopy "$uri" `+after)
	if got := s.run(debugfs, "-R", "cat data/report", after); strings.Contains(got, "all-is-well") {
		t.Error("what was written is in the chain")
	}

	// The overlay goes on where it was left.
	stop = s.serve(socket, "--overlay", overlay)
	m = s.boot(disk)
	m.Say("read report")
	if got := m.Hear("answer:", patience); got != "all-is-well" {
		t.Errorf("after another boot the report is %q", got)
	}
	s.off(m)
	stop()
}
