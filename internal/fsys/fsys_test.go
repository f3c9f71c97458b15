package fsys

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/testtool"
)

// stateOf is what Find says of the only file system in a file.
func stateOf(t *testing.T, path string) System {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	list, err := Find(f, st.Size())
	if err != nil || len(list) != 1 {
		t.Fatalf("%s: %v, %v", path, list, err)
	}
	return list[0]
}

// disk is an image with a file system made by these commands; mounts go through
// a loop device. The kernel is what says what is frozen.
type disk struct {
	t           *testing.T
	path, mount string
}

func newDisk(t *testing.T, size string, mkfs ...string) *disk {
	t.Helper()
	d := &disk{t: t, path: filepath.Join(t.TempDir(), "disk")}
	testtool.Need(t, "fsfreeze")
	testtool.Run(t, "truncate", "-s", size, d.path)
	testtool.Run(t, mkfs[0], append(mkfs[1:], d.path)...)
	return d
}

func (d *disk) want(what, kind string, state State) {
	d.t.Helper()
	if s := stateOf(d.t, d.path); s.Kind != kind || s.State != state {
		d.t.Errorf("%s: %s is %s (%s), want %s %s", what, s.Kind, s.State, s.Why, kind, state)
	}
}

// write makes and removes files, so that the journal has something.
func (d *disk) write(round int) {
	d.t.Helper()
	script := `cd "$1"; for i in $(seq 60); do head -c 5000 /dev/urandom >f$2-$i; done; rm -f f*-1*; mkdir d$2; sync -f .`
	if out, err := exec.Command("sh", "-ec", script, "sh", d.mount, strings.Repeat("x", round+1)).CombinedOutput(); err != nil {
		d.t.Fatalf("%v: %s", err, out)
	}
}

func TestRealFileSystems(t *testing.T) {
	for _, c := range []struct {
		kind, size string
		mkfs       []string
	}{
		{"ext4", "64M", []string{"mkfs.ext4", "-q"}},
		{"ext4", "64M", []string{"mkfs.ext4", "-q", "-O", "^metadata_csum,64bit", "-b", "1024"}},
		{"ext3", "64M", []string{"mkfs.ext3", "-q"}},
		{"xfs", "320M", []string{"mkfs.xfs", "-q"}},
		{"xfs", "320M", []string{"mkfs.xfs", "-q", "-b", "size=1024", "-l", "su=32k"}},
	} {
		t.Run(strings.Join(c.mkfs, " "), func(t *testing.T) {
			d := newDisk(t, c.size, c.mkfs...)
			d.want("new", c.kind, Settled)
			loop := testtool.Loop(t, d.path)
			d.mount = testtool.Mount(t, c.kind, loop)
			for round := range 2 {
				d.write(round)
				d.want("mounted", c.kind, Pending)
				testtool.Run(t, "fsfreeze", "-f", d.mount)
				d.want("frozen", c.kind, Settled)
				testtool.Run(t, "fsfreeze", "-u", d.mount)
			}
			d.write(4)
			d.want("thawed", c.kind, Pending)
			testtool.Run(t, "mount", "-o", "remount,ro", d.mount)
			d.want("unmounted", c.kind, Settled)
		})
	}
}

func TestExt2(t *testing.T) {
	d := newDisk(t, "16M", "mkfs.ext2", "-q")
	d.want("new", "ext2", Settled)
	d.mount = testtool.Mount(t, "ext2", testtool.Loop(t, d.path))
	d.write(0)
	d.want("mounted", "ext2", Unknown)
}

// The ring of the log turns over: head and tail are anywhere.
func TestXFSLogWraps(t *testing.T) {
	d := newDisk(t, "320M", "mkfs.xfs", "-q", "--unsupported", "-b", "size=1024", "-l", "size=4m")
	loop := testtool.Loop(t, d.path)
	d.mount = testtool.Mount(t, "xfs", loop)
	script := `cd "$1"; for i in $(seq 3000); do : >f$i; done; sync -f .; rm -f f*; sync -f .`
	seen := map[uint32]bool{}
	for round := range 30 {
		if out, err := exec.Command("sh", "-ec", script, "sh", d.mount).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		testtool.Run(t, "fsfreeze", "-f", d.mount)
		d.want("frozen", "xfs", Settled)
		seen[firstCycle(t, d.path)] = true
		testtool.Run(t, "fsfreeze", "-u", d.mount)
		d.write(round)
		d.want("thawed", "xfs", Pending)
		if len(seen) > 2 {
			return
		}
	}
	t.Errorf("the log did not turn over: cycles %v", seen)
}

func firstCycle(t *testing.T, path string) uint32 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 512)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	start, shift := be.Uint64(b[xfsLogStartAt:]), b[xfsAGShiftAt]
	at := (start>>shift*uint64(be.Uint32(b[xfsAGBlocksAt:])) + start&(1<<shift-1)) * uint64(be.Uint32(b[xfsBlockSizeAt:]))
	if _, err := f.ReadAt(b, int64(at)); err != nil {
		t.Fatal(err)
	}
	return cycle(b)
}

// What Windows writes to its log is put there by hand: ntfs-3g leaves it empty.
func TestNTFS(t *testing.T) {
	d := newDisk(t, "16M", "mkntfs", "-q", "-F")
	d.want("new", "ntfs", Settled)
	f, err := os.OpenFile(d.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	boot := make([]byte, 512)
	if _, err := f.ReadAt(boot, 0); err != nil {
		t.Fatal(err)
	}
	cluster, record := ntfsSizes(boot)
	file := make([]byte, record)
	if _, err := f.ReadAt(file, int64(le.Uint64(boot[ntfsTableAt:])*cluster+2*record)); err != nil {
		t.Fatal(err)
	}
	if !fixup(file, "FILE") {
		t.Fatal("the record of $LogFile is not whole")
	}
	first, ok := firstRun(file)
	if !ok {
		t.Fatal("$LogFile has no content")
	}
	for _, c := range []struct {
		what         string
		lsn          [2]uint64
		client, flag [2]uint16
		torn         int
		want         State
	}{
		{"in use", [2]uint64{8, 9}, [2]uint16{0, 0}, [2]uint16{0, 0}, -1, Pending},
		{"clean by its flag", [2]uint64{8, 9}, [2]uint16{0, 0}, [2]uint16{2, 2}, -1, Settled},
		{"clean for want of clients", [2]uint64{8, 9}, [2]uint16{0xffff, 0xffff}, [2]uint16{0, 0}, -1, Settled},
		{"the second is newer", [2]uint64{8, 9}, [2]uint16{0, 0}, [2]uint16{2, 0}, -1, Pending},
		{"the first is newer", [2]uint64{10, 9}, [2]uint16{0, 0}, [2]uint16{2, 0}, -1, Settled},
		{"the first is torn", [2]uint64{10, 9}, [2]uint16{0, 0}, [2]uint16{2, 0}, 0, Pending},
	} {
		for i := range 2 {
			page := make([]byte, restartPage)
			copy(page, "RSTR")
			le.PutUint16(page[4:], 30)
			le.PutUint16(page[6:], 9)
			le.PutUint32(page[16:], 4096)
			le.PutUint32(page[20:], 4096)
			le.PutUint16(page[restartAreaAt:], 0x30)
			le.PutUint64(page[0x30:], c.lsn[i])
			le.PutUint16(page[0x30+restartClient:], c.client[i])
			le.PutUint16(page[0x30+restartFlags:], c.flag[i])
			le.PutUint16(page[30:], 7)
			for s := range 8 {
				le.PutUint16(page[s*512+510:], 7)
			}
			if c.torn == i {
				page[511] = 9
			}
			if _, err := f.WriteAt(page, int64(first*cluster)+int64(i*restartPage)); err != nil {
				t.Fatal(err)
			}
		}
		d.want(c.what, "ntfs", c.want)
	}
}

// File systems are found on partitions, and what is none is none.
func TestPartitions(t *testing.T) {
	dir := t.TempDir()
	disk, part := filepath.Join(dir, "disk"), filepath.Join(dir, "part")
	testtool.Run(t, "truncate", "-s", "40M", disk)
	testtool.Run(t, "truncate", "-s", "8M", part)
	testtool.Run(t, "mkfs.ext4", "-q", part)
	testtool.Run(t, "sh", "-c", `printf 'label: gpt\nstart=2048,size=8192\nstart=16384,size=16384\n' | sfdisk -q "$0"; dd if="$1" of="$0" bs=1M seek=8 conv=notrunc status=none`, disk, part)
	if s := stateOf(t, disk); s.Partition != 2 || s.Kind != "ext4" || s.State != Settled || s.Name() != "partition 2 (ext4)" {
		t.Errorf("found %+v", s)
	}
	for _, b := range [][]byte{nil, make([]byte, 5), make([]byte, 1<<16)} {
		if list, err := Find(bytes.NewReader(b), int64(len(b))); list != nil || err != nil {
			t.Errorf("in %d zeros: %v, %v", len(b), list, err)
		}
	}
}
