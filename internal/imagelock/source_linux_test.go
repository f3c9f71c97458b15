package imagelock_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/imagelock"
	"cbt/internal/testtool"

	"golang.org/x/sys/unix"
)

// wantWritten opens path anew for every look.
func wantWritten(t *testing.T, path, by, advice string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if gotBy, gotAdvice, err := imagelock.Written(f); err != nil || gotBy != by || gotAdvice != advice {
		t.Errorf("Written of %s = %q, %q, %v, want %q, %q", path, gotBy, gotAdvice, err, by, advice)
	}
}

// TestWritten: a source is refused for what may write to it, and not for what
// only reads.
func TestWritten(t *testing.T) {
	disk := newDisk(t, 16<<20)
	mkfs(t, "ext4", disk)
	wantWritten(t, disk, "", "")
	dev := testtool.Loop(t, disk)
	wantWritten(t, dev, "", "")
	wantWritten(t, disk, "behind "+dev, "`losetup -d "+dev+"` ends that")
	link := filepath.Join(filepath.Dir(disk), "other name")
	if err := os.Link(disk, link); err != nil {
		t.Fatal(err)
	}
	wantWritten(t, link, "behind "+dev, "`losetup -d "+dev+"` ends that")

	dir := testtool.Mount(t, "ext4", dev)
	wantWritten(t, dev, "mounted at "+dir, "`umount "+dir+"` ends that")
	wantWritten(t, disk, "behind "+dev, "`umount "+dir+"; losetup -d "+dev+"` ends that")
	testtool.Run(t, "mount", "-o", "remount,ro", dir)
	wantWritten(t, dev, "", "")

	// A read-only mount of a filesystem that is written to through another.
	testtool.Run(t, "mount", "-o", "remount,rw", dir)
	testtool.Run(t, "mount", "-o", "remount,bind,ro", dir)
	wantWritten(t, dev, "mounted at "+dir, "`umount "+dir+"` ends that")

	// Two loop devices of one file, one of which writes.
	reader := testtool.Loop(t, disk, "--read-only")
	wantWritten(t, reader, "an image of "+disk+", which is behind "+dev, "`umount "+dir+"; losetup -d "+dev+"` ends that")
}

func TestWrittenReadOnlyLoop(t *testing.T) {
	disk := newDisk(t, 16<<20)
	mkfs(t, "ext4", disk)
	dev := testtool.Loop(t, disk, "--read-only")
	wantWritten(t, disk, "", "")
	wantWritten(t, dev, "", "")
	testtool.Mount(t, "ext4", dev, "ro")
	wantWritten(t, dev, "", "")
	wantWritten(t, disk, "", "")
}

// TestWrittenByMachine: a machine has the file behind a loop device.
func TestWrittenByMachine(t *testing.T) {
	disk := newDisk(t, 1<<20)
	dev := testtool.Loop(t, disk)
	f := open(t, disk, os.O_RDWR)
	wantFree(t, "HoldWrite", imagelock.HoldWrite(f))
	wantWritten(t, dev, "an image of "+disk+", which a running machine or another program writes to", "")
}

// TestWrittenElsewhere mounts in a namespace that this process sees only in
// /proc, once to be written to and once not.
func TestWrittenElsewhere(t *testing.T) {
	disk := newDisk(t, 16<<20)
	mkfs(t, "ext4", disk)
	dev := testtool.Loop(t, disk)
	for _, option := range []string{"rw", "ro"} {
		dir := t.TempDir()
		cmd := exec.Command(testtool.Need(t, "unshare"), "--mount", "--propagation", "private",
			"sh", "-c", `mount -t ext4 -o "$2" "$0" "$1" && echo $$ && read wait; umount "$1"`, dev, dir, option)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pid, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Skipf("unshare: %q, %v", pid, err)
		}
		pid = strings.TrimSpace(pid)
		if option == "rw" {
			wantWritten(t, dev, "mounted at "+dir+" in the mount namespace of process "+pid, "`nsenter -t "+pid+" -m umount "+dir+"` ends that")
		} else {
			wantWritten(t, dev, "", "")
		}
		in.Close()
		cmd.Wait()
	}
}

// TestWrittenPartition: a disk is written to through its partitions, and a
// partition through its disk.
func TestWrittenPartition(t *testing.T) {
	disk := newDisk(t, 17<<20)
	dev := testtool.Loop(t, disk, "--partscan")
	testtool.Run(t, "addpart", dev, "1", "2048", "32768")
	t.Cleanup(func() { testtool.Run(t, "delpart", dev, "1") })
	mkfs(t, "ext4", dev+"p1")
	wantWritten(t, dev+"p1", "", "")
	t.Run("behind", func(t *testing.T) {
		second := testtool.Loop(t, dev)
		wantWritten(t, dev+"p1", "its disk is behind "+second, "`losetup -d "+second+"` ends that")
	})
	dir := testtool.Mount(t, "ext4", dev+"p1")
	wantWritten(t, dev, "its partition "+filepath.Base(dev)+"p1 is mounted at "+dir, "`umount "+dir+"` ends that")
	wantWritten(t, dev+"p1", "mounted at "+dir, "`umount "+dir+"` ends that")
}

func TestWrittenExclusively(t *testing.T) {
	dev := testtool.Loop(t, newDisk(t, 1<<20))
	open(t, dev, os.O_RDWR|unix.O_EXCL)
	wantWritten(t, dev, "opened exclusively by another program, or mounted in a mount namespace that cannot be seen", "")
}
