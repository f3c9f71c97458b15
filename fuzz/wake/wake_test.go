package wake

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cbt/fuzz/tool"
	"cbt/internal/testqemu"
	"cbt/internal/testtool"
	"cbt/internal/testvm"
)

// guestInit is a guest whose first process counts seconds, and remembers a
// secret that it was told on its console. Neither is anywhere but in its memory.
const guestInit = `
mount -t devtmpfs dev /dev
modprobe virtio_pci; modprobe virtio_blk; modprobe ext4
mount -t ext4 /dev/vda /mnt || echo "no disk"
counter=0
echo
echo "ready:"
while :; do
	counter=$((counter + 1))
	if read -t 1 command word; then
		case $command in
		file) echo "$word" >/mnt/file; sync; echo "done:" ;;
		secret) secret=$word; echo "done:" ;;
		ask) echo 3 >/proc/sys/vm/drop_caches; echo "answer: $(cat /mnt/file) $secret $counter" ;;
		esac
	fi
done
`

// patience is how long a guest may take to answer; emulated on a busy machine
// it is slow.
const patience = 2 * time.Minute

// guest is what all machines of a test have in common.
type guest struct {
	t              *testing.T
	kernel, initrd string
	cbt, dir       string
	memory         int // MiB
	counters       [3]int
	file, secret   [3]string
}

func newGuest(t *testing.T, memory int) *guest {
	t.Helper()
	for _, name := range []string{"qemu-system-x86_64", "qemu-img", "mkfs.ext4"} {
		testtool.Need(t, name)
	}
	g := &guest{t: t, dir: t.TempDir(), memory: memory}
	g.kernel, g.initrd = testvm.Small(t, "mount -t proc proc /proc\n"+guestInit, "virtio_pci", "virtio_blk", "ext4", "crc32c_generic")
	var err error
	if g.cbt, err = tool.Binary(os.Getenv("CBT"), g.dir); err != nil {
		t.Fatal(err)
	}
	g.file = [3]string{"", "file-of-monday", "file-of-tuesday"}
	g.secret = [3]string{"", "secret-of-monday", "secret-of-tuesday"}
	raw := g.path("disk.raw")
	g.run("truncate", "-s", "64M", raw)
	g.run("mkfs.ext4", "-q", "-F", raw)
	return g
}

func (g *guest) path(name string) string { return filepath.Join(g.dir, name) }

func (g *guest) run(name string, args ...string) string {
	g.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		g.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// start boots the guest, or makes it go on, on a disk.
func (g *guest) start(disk, format string, more ...string) *testqemu.Machine {
	g.t.Helper()
	args := append([]string{
		"-M", "pc", "-m", strconv.Itoa(g.memory), "-kernel", g.kernel, "-initrd", g.initrd,
		"-append", "console=ttyS0 panic=-1 quiet mitigations=off nokaslr tsc=reliable random.trust_cpu=on",
		"-blockdev", fmt.Sprintf("driver=%s,node-name=disk,file.driver=file,file.filename=%s", format, disk),
		"-device", "virtio-blk-pci,drive=disk",
	}, testqemu.Serial()...)
	return testqemu.Start(g.t, append(args, more...)...)
}

// tell gives the guest the file and the secret of a point.
func (g *guest) tell(m *testqemu.Machine, point int) {
	g.t.Helper()
	m.Say("file " + g.file[point])
	m.Hear("done:", patience)
	m.Say("secret " + g.secret[point])
	m.Hear("done:", patience)
	g.counters[point] = g.ask(m, point)
}

// ask has the guest tell file, secret and counter, of which the first two must
// be those of the point.
func (g *guest) ask(m *testqemu.Machine, point int) int {
	g.t.Helper()
	m.Say("ask")
	answer := strings.Fields(m.Hear("answer:", patience))
	if len(answer) != 3 || answer[0] != g.file[point] || answer[1] != g.secret[point] {
		g.t.Fatalf("the guest says %q, want %s and %s", answer, g.file[point], g.secret[point])
	}
	n, err := strconv.Atoi(answer[2])
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// wakes restores a point into an empty folder and asks the machine that goes
// on there.
func (g *guest) wakes(point int, delta string) {
	g.t.Helper()
	dir := g.t.TempDir()
	disk, state := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "state")
	g.t.Log(strings.TrimSpace(g.run(g.cbt, "restore", delta, disk, "--state", state)))
	m := g.start(disk, "raw", "-S", "-incoming", "exec:cat "+state)
	defer m.Kill()
	m.Until("query-migrate", "completed")
	m.Do("cont", nil)
	n := g.ask(m, point)
	if n <= g.counters[point] || n > g.counters[point]+30 {
		g.t.Errorf("the counter stands at %d, and stood at %d", n, g.counters[point])
	}
	if then := g.ask(m, point); then <= n {
		g.t.Errorf("the counter does not go on: %d, then %d", n, then)
	}
	if out := g.run(g.cbt, "ram", "find", "--text", g.secret[point], delta); !strings.Contains(out, "0x") {
		g.t.Errorf("the secret of point %d is not in its RAM: %s", point, out)
	}
	if out := g.run(g.cbt, "ram", "find", "--text", g.secret[2], delta); point == 1 && strings.Contains(out, "0x") {
		g.t.Errorf("the secret of point 2 is in the RAM of point 1: %s", out)
	}
	g.t.Logf("point %d: counter %d at the snapshot, %d when it woke up", point, g.counters[point], n)
}

// TestInternalSnapshots goes by snapshots inside a qcow2 image.
func TestInternalSnapshots(t *testing.T) {
	g := newGuest(t, 128)
	image := g.path("disk.qcow2")
	g.run("qemu-img", "convert", "-O", "qcow2", g.path("disk.raw"), image)
	if err := os.Remove(g.path("disk.raw")); err != nil {
		t.Fatal(err)
	}
	m := g.start(image, "qcow2")
	m.Hear("ready:", patience)
	g.tell(m, 1)
	m.Human("savevm monday")
	g.run(g.cbt, "diff", "--full", image+"@monday", "-o", g.path("monday.cbt"))
	g.tell(m, 2)
	m.Human("savevm tuesday")
	t.Log(strings.TrimSpace(g.run(g.cbt, "diff", image+"@monday", image+"@tuesday", "-o", g.path("tuesday.cbt"))))
	m.Kill()
	if err := os.Remove(image); err != nil {
		t.Fatal(err)
	}
	g.wakes(1, g.path("monday.cbt"))
	g.wakes(2, g.path("tuesday.cbt"))
}

// TestStateFiles goes by state files, and by disks that were left behind by
// external snapshots.
func TestStateFiles(t *testing.T) {
	g := newGuest(t, 128)
	m := g.start(g.path("disk.raw"), "raw")
	m.Hear("ready:", patience)
	super := func(point int, state, overlay string) {
		g.tell(m, point)
		m.Do("stop", nil)
		m.Migrate("exec:cat>" + g.path(state))
		m.Do("cont", nil) // takes the disks back from the migration
		m.Do("stop", nil)
		m.Do("blockdev-snapshot-sync", map[string]any{
			"node-name": map[int]string{1: "disk", 2: "first"}[point], "snapshot-file": g.path(overlay), "format": "qcow2",
			"snapshot-node-name": map[int]string{1: "first", 2: "second"}[point],
		})
		m.Do("cont", nil)
	}
	super(1, "monday.state", "first.qcow2")
	g.run(g.cbt, "diff", "--full", g.path("disk.raw"), "--new-state", g.path("monday.state"), "-o", g.path("monday.cbt"))
	super(2, "tuesday.state", "second.qcow2")
	t.Log(strings.TrimSpace(g.run(g.cbt, "diff", g.path("disk.raw"), g.path("first.qcow2"), "--frozen",
		"--old-state", g.path("monday.state"), "--new-state", g.path("tuesday.state"), "-o", g.path("tuesday.cbt"))))
	m.Kill()
	for _, name := range []string{"disk.raw", "first.qcow2", "second.qcow2", "monday.state", "tuesday.state"} {
		if err := os.Remove(g.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	g.wakes(1, g.path("monday.cbt"))
	g.wakes(2, g.path("tuesday.cbt"))
}

// TestSmall has an idle machine of 512 MiB saved twice, ten seconds apart. What
// changed in its RAM must be under 3 % of the second state.
func TestSmall(t *testing.T) {
	g := newGuest(t, 512)
	image := g.path("disk.qcow2")
	g.run("qemu-img", "convert", "-O", "qcow2", g.path("disk.raw"), image)
	m := g.start(image, "qcow2")
	m.Hear("ready:", patience)
	m.Human("savevm monday")
	time.Sleep(10 * time.Second)
	m.Human("savevm tuesday")
	g.run(g.cbt, "diff", "--ram", "only", image+"@monday", image+"@tuesday", "-o", g.path("ram.cbt"))
	delta, err := os.Stat(g.path("ram.cbt"))
	if err != nil {
		t.Fatal(err)
	}
	g.run(g.cbt, "diff", "--full", "--ram", "only", image+"@tuesday", "-o", g.path("full.cbt"))
	g.run(g.cbt, "restore", g.path("full.cbt"), "--state", g.path("tuesday.state"))
	state, err := os.Stat(g.path("tuesday.state"))
	if err != nil {
		t.Fatal(err)
	}
	share := 100 * float64(delta.Size()) / float64(state.Size())
	t.Logf("%d bytes of delta for a state of %d: %.2f %%", delta.Size(), state.Size(), share)
	if share >= 3 {
		t.Error("not under 3 %")
	}
}
