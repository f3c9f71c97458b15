package sparse_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cbt/internal/testtool"
	"cbt/sparse"
	"cbt/sparse/sparsetest"

	"golang.org/x/sys/unix"
)

// systemMaps is true if files have holes that OpenRaw can see.
const systemMaps = true

// filesystems lists the filesystems to test on, each with the command that makes it.
var filesystems = []struct {
	name, mkfs string
	args       []string
	sparse     bool // has holes, reports them and can punch them
}{
	{"ext4", "mkfs.ext4", []string{"-q"}, true},
	{"ext2", "mkfs.ext2", []string{"-q"}, true},
	{"xfs", "mkfs.xfs", []string{"-q"}, true},
	{"btrfs", "mkfs.btrfs", []string{"-q"}, true},
	{"vfat", "mkfs.vfat", nil, false},
	{"tmpfs", "", nil, true},
	{"ramfs", "", nil, false},
}

func eachFilesystem(t *testing.T, test func(t *testing.T, dir string, hasHoles bool)) {
	for _, fsys := range filesystems {
		t.Run(fsys.name, func(t *testing.T) {
			device := ""
			if fsys.mkfs != "" {
				if _, ok := testtool.Find(fsys.mkfs); !ok {
					t.Skipf("%s is not installed", fsys.mkfs)
				}
				disk := filepath.Join(t.TempDir(), "fs.raw")
				if err := os.WriteFile(disk, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(disk, 320<<20); err != nil {
					t.Fatal(err)
				}
				testtool.Run(t, fsys.mkfs, append(fsys.args, disk)...)
				device = testtool.Loop(t, disk)
			}
			test(t, testtool.Mount(t, fsys.name, device), fsys.sparse)
		})
	}
}

func TestRawFilesystems(t *testing.T) {
	eachFilesystem(t, func(t *testing.T, dir string, hasHoles bool) {
		const unit = 64 << 10
		want := mottled(4<<20+5, unit, 9)
		path := filepath.Join(dir, "disk.raw")
		writeSparse(t, path, want, unit).Close()
		v, _ := openRaw(t, path)
		sparsetest.View(t, v, want)
		if hasHoles {
			equalExtents(t, v, wantExtents(want, unit))
		} else {
			equalExtents(t, v, []sparse.Extent{{Off: 0, Len: v.Size(), Kind: sparse.Data}})
		}
	})
}

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Blocks * 512
}

func TestTargetFilesystems(t *testing.T) {
	eachFilesystem(t, func(t *testing.T, dir string, hasHoles bool) {
		want := noise(2<<20+123, 5)
		path := filepath.Join(dir, "target.raw")
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		target := openTarget(t, path)
		exerciseTarget(t, target, want, path, 60)

		if _, err := target.WriteAt(noise(1<<20, 1), 0); err != nil {
			t.Fatal(err)
		}
		if err := target.Zero(1000, target.Size()-2000); err != nil {
			t.Fatal(err)
		}
		if err := target.Sync(); err != nil {
			t.Fatal(err)
		}
		if used := blocks(t, path); hasHoles && used > 64<<10 {
			t.Errorf("zeroed, the file still uses %d bytes", used)
		}
		got, err := os.ReadFile(path)
		if err != nil || !sparse.IsZero(got[1000:len(got)-1000]) || int64(len(got)) != target.Size() {
			t.Errorf("zeroed, the file reads wrong: %d bytes, %v", len(got), err)
		}
	})
}

// TestTargetDevice works on a device that holds noise. Its end does not lie on a page boundary.
func TestTargetDevice(t *testing.T) {
	for _, sector := range []string{"512", "4096"} {
		t.Run(sector, func(t *testing.T) {
			want := noise(8<<20+3*4096, 5)
			if sector == "512" {
				want = want[:len(want)-3*512]
			}
			disk := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(disk, want, 0o600); err != nil {
				t.Fatal(err)
			}
			dev := testtool.Loop(t, disk, "--sector-size="+sector)
			target := openTarget(t, dev)
			if target.Size() != int64(len(want)) {
				t.Fatalf("Size() = %d, want %d", target.Size(), len(want))
			}
			exerciseTarget(t, target, want, dev, 300)
			if got, err := os.ReadFile(disk); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the disk below does not hold what was written: %v", err)
			}

			v, _ := openRaw(t, dev)
			sparsetest.View(t, v, want)
			equalExtents(t, v, []sparse.Extent{{Off: 0, Len: v.Size(), Kind: sparse.Data}})

			if err := target.Truncate(target.Size() + 1); err == nil {
				t.Error("Truncate past the end of a device was done")
			}
			if err := target.Truncate(4096); err != nil || target.Size() != int64(len(want)) {
				t.Errorf("Truncate(4096) of a device: %v, Size() = %d", err, target.Size())
			}
			if n, err := target.WriteAt(make([]byte, 2), target.Size()-1); err == nil || n != 0 {
				t.Errorf("WriteAt across the end of a device = %d, %v", n, err)
			}
		})
	}
}

// TestTargetDeviceHeld zeroes what was just written to a device, while somebody else has it open
// exclusively and while the target itself has.
func TestTargetDeviceHeld(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, noise(4<<20, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	dev := testtool.Loop(t, disk)
	zero := func(f *os.File) {
		t.Helper()
		target, err := sparse.OpenTarget(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := target.WriteAt(noise(1<<20, 2), 0); err != nil {
			t.Fatal(err)
		}
		if err := target.Zero(0, 2<<20); err != nil {
			t.Errorf("Zero of what was just written: %v", err)
		}
		if err := target.Sync(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(disk)
		if err != nil || !sparse.IsZero(got[:2<<20]) {
			t.Errorf("the disk is not zero: %v", err)
		}
	}
	held, err := os.OpenFile(dev, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zero(f)
	zero(held)
}

func TestTargetFlags(t *testing.T) {
	path := filepath.Join(t.TempDir(), "target.raw")
	if err := os.WriteFile(path, make([]byte, 10), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, flags := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_APPEND} {
		f, err := os.OpenFile(path, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if target, err := sparse.OpenTarget(f); err == nil || target != nil {
			t.Errorf("OpenTarget with flags %#x: %v, %v", flags, target, err)
		}
	}
}

func TestRefusedFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = sparse.OpenRaw(f)
	if err == nil || !strings.Contains(err.Error(), path+": a pipe, not a regular file") {
		t.Errorf("OpenRaw of a FIFO: %v", err)
	}
	if _, err = sparse.OpenTarget(f); err == nil {
		t.Error("OpenTarget of a FIFO succeeded")
	}
}

// TestRawReadOnlyMount: a read-only filesystem has nothing to sync, and its error is no failure.
func TestRawReadOnlyMount(t *testing.T) {
	if _, ok := testtool.Find("mkfs.ext4"); !ok {
		t.Skip("mkfs.ext4 is not installed")
	}
	const unit = 64 << 10
	want := mottled(1<<20, unit, 3)
	src := t.TempDir()
	writeSparse(t, filepath.Join(src, "disk.raw"), want, unit).Close()
	disk := filepath.Join(t.TempDir(), "fs.raw")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 16<<20); err != nil {
		t.Fatal(err)
	}
	testtool.Run(t, "mkfs.ext4", "-q", "-d", src, disk)
	dir := testtool.Mount(t, "ext4", testtool.Loop(t, disk, "--read-only"), "ro")
	v, _ := openRaw(t, filepath.Join(dir, "disk.raw"))
	sparsetest.View(t, v, want)
	equalExtents(t, v, wantExtents(want, unit))
	if _, err := os.OpenFile(filepath.Join(dir, "x"), os.O_CREATE|os.O_RDWR, 0o600); err == nil {
		t.Error("the mount is not read-only")
	} else if _, ok := err.(*fs.PathError); !ok {
		t.Error(err)
	}
}
