package imagelock_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cbt/internal/imagelock"
	"cbt/internal/testtool"

	"golang.org/x/sys/unix"
)

// wantUse opens path anew for every look.
func wantUse(t *testing.T, path, want string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := imagelock.InUse(f); err != nil || got != want {
		t.Errorf("InUse of %s = %q, %v, want %q", path, got, err, want)
	}
}

func newDisk(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// mkfs makes a filesystem, and skips the test where there is no such tool.
func mkfs(t *testing.T, kind, path string) {
	t.Helper()
	if _, ok := testtool.Find("mkfs." + kind); !ok {
		t.Skipf("mkfs.%s is not installed", kind)
	}
	testtool.Run(t, "mkfs."+kind, "-q", path)
}

func TestNotInUse(t *testing.T) {
	disk := newDisk(t, 1<<20)
	wantUse(t, disk, "")
	// Somebody who has it open, but no more than that, does not count.
	open(t, disk, os.O_RDWR)
	wantUse(t, disk, "")
	wantUse(t, t.TempDir(), "")
	wantUse(t, os.DevNull, "")
}

func TestInUseBehindLoop(t *testing.T) {
	disk := newDisk(t, 1<<20)
	dev := testtool.Loop(t, disk)
	wantUse(t, dev, "")
	wantUse(t, disk, "behind "+dev)

	link := filepath.Join(filepath.Dir(disk), "other name")
	if err := os.Link(disk, link); err != nil {
		t.Fatal(err)
	}
	wantUse(t, link, "behind "+dev)
	copied := newDisk(t, 1<<20)
	wantUse(t, copied, "")
	// The path that the loop device was made with now leads elsewhere.
	if err := os.Rename(copied, disk); err != nil {
		t.Fatal(err)
	}
	wantUse(t, disk, "")
	wantUse(t, link, "behind "+dev)

	// A device may be behind a loop device too.
	second := testtool.Loop(t, dev)
	wantUse(t, dev, "behind "+second)
}

func TestInUseMounted(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			disk := newDisk(t, 320<<20)
			mkfs(t, kind, disk)
			dev := testtool.Loop(t, disk)
			wantUse(t, dev, "")
			dir := testtool.Mount(t, kind, dev)
			wantUse(t, dev, "mounted at "+dir)
			wantUse(t, disk, "behind "+dev)

			// Another node of the same device is the same device.
			var st unix.Stat_t
			if err := unix.Stat(dev, &st); err != nil {
				t.Fatal(err)
			}
			node := filepath.Join(t.TempDir(), "node")
			if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(st.Rdev)); err != nil {
				t.Skip(err)
			}
			if f, err := os.Open(node); err != nil {
				t.Skip("no devices outside /dev: ", err)
			} else {
				f.Close()
			}
			wantUse(t, node, "mounted at "+dir)
		})
	}
}

// TestInUseMountedElsewhere mounts in a mount namespace that this process
// does not see.
func TestInUseMountedElsewhere(t *testing.T) {
	disk := newDisk(t, 16<<20)
	mkfs(t, "ext4", disk)
	dev := testtool.Loop(t, disk)
	dir := t.TempDir()
	cmd := exec.Command(testtool.Need(t, "unshare"), "--mount", "--propagation", "private",
		"sh", "-c", `mount -t ext4 "$0" "$1" && echo $$ && read wait; umount "$1"`, dev, dir)
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
	defer func() {
		in.Close()
		cmd.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Skipf("unshare: %q, %v", line, err)
	}
	wantUse(t, dev, "mounted at "+dir+" in the mount namespace of process "+strings.TrimSpace(line))
}

func TestInUseExclusively(t *testing.T) {
	dev := testtool.Loop(t, newDisk(t, 1<<20))
	f := open(t, dev, os.O_RDWR|unix.O_EXCL)
	wantUse(t, dev, "opened exclusively by another program")
	f.Close()
	wantUse(t, dev, "")
}

func TestExclusive(t *testing.T) {
	disk := newDisk(t, 16<<20)
	mkfs(t, "ext4", disk)
	dev := testtool.Loop(t, disk)
	f := open(t, dev, os.O_RDONLY)
	held, err := imagelock.Exclusive(f)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if held.Name() != dev {
		t.Errorf("Name() = %s", held.Name())
	}
	f.Close()
	wantUse(t, dev, "opened exclusively by another program")
	if out, err := testtool.Try(t, "mount", dev, t.TempDir()); err == nil {
		t.Errorf("mounted what is held: %s", out)
		testtool.Run(t, "umount", dev)
	}
	if _, err := held.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Errorf("writing to what is held: %v", err)
	}
	wantFree(t, "HoldWrite of what is held", imagelock.HoldWrite(held))

	second := open(t, dev, os.O_RDWR)
	_, err = imagelock.Exclusive(second)
	wantBusy(t, "Exclusive, twice", err)
	held.Close()
	if again, err := imagelock.Exclusive(second); err != nil {
		t.Errorf("Exclusive, once the other is closed: %v", err)
	} else {
		again.Close()
	}
	if f, err := imagelock.Exclusive(open(t, disk, os.O_RDWR)); err == nil {
		t.Errorf("Exclusive of a regular file: %v", f)
	}
}

func TestInUseSwap(t *testing.T) {
	mkswap, swapon := testtool.Need(t, "mkswap"), testtool.Need(t, "swapon")
	disk := newDisk(t, 1<<20)
	testtool.Run(t, mkswap, "-q", disk)
	dev := testtool.Loop(t, disk)
	if out, err := exec.Command(swapon, dev).CombinedOutput(); err != nil {
		t.Skipf("swapon: %v: %s", err, out)
	}
	defer testtool.Run(t, "swapoff", dev)
	wantUse(t, dev, "used as swap")
}

// TestInUsePartition mounts a partition of a disk.
func TestInUsePartition(t *testing.T) {
	const start, sectors = 2048, 32768
	disk := newDisk(t, 17<<20)
	dev := testtool.Loop(t, disk, "--partscan")
	testtool.Run(t, "addpart", dev, "1", strconv.Itoa(start), strconv.Itoa(sectors))
	t.Cleanup(func() { testtool.Run(t, "delpart", dev, "1") })
	mkfs(t, "ext4", dev+"p1")
	wantUse(t, dev, "")
	dir := testtool.Mount(t, "ext4", dev+"p1")
	wantUse(t, dev+"p1", "mounted at "+dir)
	wantUse(t, dev, "its partition "+filepath.Base(dev)+"p1 is mounted at "+dir)
}
