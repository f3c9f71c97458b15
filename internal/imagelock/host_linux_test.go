package imagelock

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/testtool"

	"golang.org/x/sys/unix"
)

// fakeHost is a directory with /proc, /sys and /dev in it, for what a test
// cannot do to the kernel it runs on.
func fakeHost(t *testing.T, files map[string]string) host {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(content, "ROOT", root)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return host{filepath.Join(root, "proc"), filepath.Join(root, "sys"), filepath.Join(root, "dev")}
}

func device(major, minor uint32) identity {
	return identity{device: true, dev: unix.Mkdev(major, minor)}
}

// usedBy is the first use.
func usedBy(h host, id identity) (string, error) {
	all, err := h.uses(id)
	if len(all) == 0 {
		return "", err
	}
	return all[0].by, err
}

const mountinfo = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/root rw,discard
36 35 98:7 /mnt1 /mnt\040one\134two rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue
40 27 0:44 / /image rw - erofs ROOT/disk.img ro
41 27 0:45 / /odd rw - fuse
broken line
`

func TestHost(t *testing.T) {
	h := fakeHost(t, map[string]string{
		"proc/self/mountinfo": mountinfo,
		"proc/swaps":          "Filename\tType\tSize\tUsed\tPriority\nROOT/swap\\040file   file\t1020\t0\t-2\n",
		"disk.img":            "", "swap file": "", "free": "", "behind loop": "",

		"sys/dev/block/8:16/holders/dm-3/dev": "253:3\n", "sys/dev/block/8:16/holders/md127/dev": "9:127\n",
		"sys/class/block/dm-3/dm/name":      "vg0-vm1\n",
		"sys/dev/block/8:32/holders/x":      "",
		"sys/dev/block/8:0/sda1/dev":        "8:1\n",
		"sys/dev/block/8:0/sda1/partition":  "1\n",
		"sys/dev/block/8:0/queue/nr":        "1",
		"sys/block/loop3/loop/backing_file": "ROOT/behind loop\n",
	})
	root := filepath.Dir(h.proc)
	file := func(name string) identity {
		fi, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return identityOf(fi)
	}
	for _, c := range []struct {
		what string
		id   identity
		want string
	}{
		{"a device by its number", device(98, 7), `mounted at /mnt one\two`},
		{"the root device", device(254, 0), "mounted at /"},
		{"a device that is not", device(98, 70), ""},
		{"a number that is a file's", identity{dev: unix.Mkdev(98, 7), ino: 5}, ""},
		{"a mounted file", file("disk.img"), "mounted at /image"},
		{"a swap file", file("swap file"), "used as swap"},
		{"a free file", file("free"), ""},
		{"a file behind a loop device one may not open", file("behind loop"), "behind " + root + "/dev/loop3"},
		{"a physical volume", device(8, 16), "held by dm-3 (vg0-vm1), md127"},
		{"a large number", device(259, 300000), ""},
	} {
		if got, err := usedBy(h, c.id); err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.what, got, err, c.want)
		}
	}
	parts, err := h.partitions(device(8, 0))
	if err != nil || len(parts) != 1 || parts[0] != (partition{"sda1", device(8, 1)}) {
		t.Errorf("partitions: %v, %v", parts, err)
	}
}

// TestHostUnreadable does not take for free what it could not look at.
func TestHostUnreadable(t *testing.T) {
	if by, err := usedBy(fakeHost(t, nil), device(8, 0)); err == nil {
		t.Errorf("without mountinfo: %q", by)
	}
	h := fakeHost(t, map[string]string{"proc/self/mountinfo": "", "sys/dev/block/8:0/holders": "no directory"})
	if by, err := usedBy(h, device(8, 0)); err == nil {
		t.Errorf("holders is no directory: %q", by)
	}
	h = fakeHost(t, map[string]string{"proc/self/mountinfo": "", "proc/swaps/x": ""})
	if by, err := usedBy(h, device(8, 0)); err == nil {
		t.Errorf("swaps is a directory: %q", by)
	}
	h = fakeHost(t, map[string]string{"sys/dev/block/8:0/sda1/partition": "1\n", "sys/dev/block/8:0/sda1/dev": "eight\n"})
	if parts, err := h.partitions(device(8, 0)); err == nil {
		t.Errorf("a partition without a number: %v", parts)
	}
	// A kernel without swap or sysfs has nothing to say.
	h = fakeHost(t, map[string]string{"proc/self/mountinfo": ""})
	if by, err := usedBy(h, device(8, 0)); by != "" || err != nil {
		t.Errorf("nothing there: %q, %v", by, err)
	}
}

// TestLoopOfFileOnDevice: the device whose filesystem holds a file is not
// behind the loop device that the file is behind.
func TestLoopOfFileOnDevice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	dev := testtool.Loop(t, path)
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	id := identityOf(fi)
	if same, known := loopIs(dev, id); !same || !known {
		t.Errorf("the file behind %s: %t, %t", dev, same, known)
	}
	if same, known := loopIs(dev, identity{device: true, dev: id.dev}); same || !known {
		t.Errorf("the device that holds the file behind %s: %t, %t", dev, same, known)
	}
}

// TestWrittenHolders: what is made of a device writes to it, unless it is
// read-only itself.
func TestWrittenHolders(t *testing.T) {
	h := fakeHost(t, map[string]string{
		"proc/self/mountinfo":             "",
		"sys/dev/block/8:16/holders/dm-3": "", "sys/class/block/dm-3/dm/name": "vg0-vm1\n", "sys/class/block/dm-3/ro": "0\n",
		"sys/class/block/dm-3/dm/uuid":     "LVM-0123\n",
		"sys/dev/block/8:32/holders/md127": "", "sys/class/block/md127/ro": "1\n",
		"sys/dev/block/8:48/holders/md127": "", "sys/dev/block/8:48/holders/dm-3": "",
		"sys/dev/block/8:64/holders/md126": "", "sys/class/block/md126/ro": "0\n",
	})
	for number, want := range map[uint32]use{
		16: {by: "held by dm-3 (vg0-vm1)", instead: "name the volume, lvm:VG/LV without --pv"},
		32: {by: "held by md127", readOnly: true, instead: "name what is made of it"},
		48: {by: "held by dm-3 (vg0-vm1), md127", instead: "name the volume, lvm:VG/LV without --pv"},
		64: {by: "held by md126", instead: "name what is made of it"},
	} {
		if got, err := h.uses(device(8, number)); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("8:%d: %+v, %v, want %+v", number, got, err, want)
		}
	}
}
