//go:build linux && cbtlive

package hostlvm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"cbt/internal/dm"
	"cbt/internal/hostlvm"
	"cbt/lvm"
	"cbt/sparse"
)

// What TestInMachine runs in the test machine: as root, with device-mapper and
// without udev, /dev/vda empty, /dev/vdb with an empty partition, /dev/vdc
// empty and as large as that.

func TestMain(m *testing.M) {
	if what := os.Getenv("LIVE_HELPER"); what != "" {
		os.Exit(helper(what))
	}
	run := func(script string) {
		if out, err := exec.Command("/bin/sh", "-ec", script).CombinedOutput(); err != nil {
			fmt.Printf("%s: %v\n%s", script, err, out)
			os.Exit(1)
		}
	}
	run(`
		pvcreate -q /dev/vda && vgcreate -q -s 1M vg /dev/vda
		lvcreate -q -y --type thin-pool -L 100M --poolmetadatasize 4M -c 64k -n pool vg
		lvcreate -q -y -V 64M --thin -n vm vg/pool
		dd if=/dev/urandom of=/dev/vg/vm bs=1M count=20 oflag=direct
		lvcreate -q -y -s -n s1 vg/vm
		dd if=/dev/urandom of=/dev/vg/vm bs=64k count=3 seek=37 oflag=direct
		dd if=/dev/urandom of=/dev/vg/vm bs=4k count=1 seek=6001 oflag=direct
		blkdiscard -o 1048576 -l 131072 /dev/vg/vm
		lvcreate -q -y -s -n s2 vg/vm
		lvcreate -q -y -L 16M -n thick vg
		dd if=/dev/urandom of=/dev/vg/thick bs=1M count=16 oflag=direct
		lvcreate -q -y -s -L 4M -c 8k -n old vg/thick
		dd if=/dev/urandom of=/dev/vg/thick bs=4k count=5 seek=100 oflag=direct
		lvcreate -q -y -L 5M -n idle vg
		dd if=/dev/urandom of=/dev/vg/idle bs=1M count=5 oflag=direct
		pvcreate -q /dev/vdb1 && vgcreate -q -s 1M part /dev/vdb1
		lvcreate -q -y -L 8M -n lv part`)
	os.Exit(m.Run())
}

func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("/bin/sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

func host(t *testing.T) *hostlvm.Host {
	t.Helper()
	h, err := hostlvm.Open(hostlvm.Options{LockDir: "/tmp/locks"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func group(t *testing.T, h *hostlvm.Host) *lvm.Group {
	t.Helper()
	groups, notes, err := h.Groups(t.Context())
	if err != nil || len(notes) > 0 {
		t.Fatalf("%q, %v", notes, err)
	}
	g, err := lvm.FindGroup(groups, "vg")
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func ref(t *testing.T, h *hostlvm.Host) hostlvm.PoolRef {
	t.Helper()
	r, err := hostlvm.RefOf(group(t, h).LV("vm"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func pool(t *testing.T, h *hostlvm.Host) *hostlvm.Pool {
	t.Helper()
	p, err := h.OpenPool(ref(t, h))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// heldRoot is what dmsetup says.
func heldRoot(t *testing.T) string {
	t.Helper()
	return strings.Fields(sh(t, "dmsetup status --noflush vg-pool-tpool"))[6]
}

func control(t *testing.T) *dm.Control {
	t.Helper()
	c, err := dm.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestDeviceMapper(t *testing.T) {
	c := control(t)
	all, err := c.Devices()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range all {
		readOnly := 0
		if d.ReadOnly {
			readOnly = 1
		}
		got = append(got, fmt.Sprintf("%s %s %d %d %d %d %d", d.Name, d.UUID, d.Major, d.Minor, d.OpenCount, d.Targets, readOnly))
		again, err := c.ByUUID(d.UUID)
		if err != nil || again != d {
			t.Errorf("by UUID %+v, %v, want %+v", again, err, d)
		}
		for what, ask := range map[string]func(dm.Device) ([]dm.Target, error){"table": c.Table, "status --noflush": c.Status} {
			targets, err := ask(d)
			var lines []string
			for _, l := range targets {
				lines = append(lines, strings.TrimSpace(fmt.Sprintf("%d %d %s %s", l.Start, l.Length, l.Type, strings.TrimSpace(l.Params))))
			}
			var want []string
			for line := range strings.Lines(sh(t, "dmsetup "+what+" "+d.Name)) {
				want = append(want, strings.TrimSpace(line))
			}
			if err != nil || !slices.Equal(lines, want) {
				t.Errorf("%s of %s: %q, %v, want %q", what, d, lines, err, want)
			}
		}
	}
	want := strings.Split(sh(t, "dmsetup info -c --noheadings --separator ' ' -o name,uuid,major,minor,open,segments,read_only | sed 's/Writeable/0/;s/Read-only/1/'"), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, d := range []string{"no", "vg-no"} {
		if _, err := c.ByName(d); !errors.Is(err, dm.ErrNotFound) {
			t.Errorf("%s: %v", d, err)
		}
	}

	d, err := c.ByName("vg-pool-tpool")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Message(d, 0, "release_metadata_snap"); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("release without a snapshot: %v", err)
	}
	if _, err := c.Message(d, 0, "reserve_metadata_snap"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Message(d, 0, "reserve_metadata_snap"); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("a second snapshot: %v", err)
	}
	targets, err := c.Status(d)
	if err != nil {
		t.Fatal(err)
	}
	s, err := dm.ParsePoolStatus(targets[0].Params)
	if err != nil || fmt.Sprint(s.HeldRoot) != heldRoot(t) || s.HeldRoot == 0 || s.Mode != "rw" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := c.Message(d, 0, "release_metadata_snap"); err != nil {
		t.Error(err)
	}
	// The statistics of dm answer messages to any device.
	if id, err := c.Message(d, 0, "@stats_create - 1000"); err != nil || id == "" {
		t.Errorf("@stats_create: %q, %v", id, err)
	} else if list, err := c.Message(d, 0, "@stats_list"); err != nil || !strings.HasPrefix(list, id+": ") {
		t.Errorf("@stats_list: %q, %v", list, err)
	}
}

func TestManyDevices(t *testing.T) {
	// Enough for the answer to outgrow the first buffer.
	sh(t, `i=100; while [ $i -lt 140 ]; do echo "$(printf 'many-%0122d,uuid-%0120d' $i $i),,rw,0 8 zero"; i=$((i+1)); done >/tmp/many
		dmsetup create --concise "$(tr '\n' ';' </tmp/many)"`)
	defer sh(t, `dmsetup remove $(dmsetup ls | awk '/^many-/{print $1}')`)
	all, err := control(t).Devices()
	if err != nil || len(all) < 40 {
		t.Errorf("%d devices, %v", len(all), err)
	}
}

func TestDeviceOfVolumes(t *testing.T) {
	h := host(t)
	g := group(t, h)
	for name, want := range map[string]string{
		"vm": "vg-vm", "thick": "vg-thick", "old": "vg-old", "pool_tmeta": "vg-pool_tmeta", "pool_tdata": "vg-pool_tdata", "s1": "",
	} {
		r, size, err := h.Device(g.LV(name), lvm.LayerVolume)
		if want == "" {
			if r != nil || size != 0 || err != nil {
				t.Errorf("%s: %v, %d, %v", name, r, size, err)
			}
			continue
		}
		d, _ := r.(*hostlvm.Direct)
		if err != nil || d == nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := sh(t, fmt.Sprintf("dmsetup info -c --noheadings -o name -j %d -m %d", d.Number().Major, d.Number().Minor)); got != want || size != d.Size() {
			t.Errorf("%s: device %s of %d bytes, want %s", name, got, size, want)
		}
	}
	r, _, err := h.Device(g.LV("old"), lvm.LayerStore)
	magic := make([]byte, 4)
	if err == nil {
		_, err = r.ReadAt(magic, 0)
	}
	if err != nil || string(magic) != "SnAp" {
		t.Errorf("exception store: %q, %v", magic, err)
	}
	// A device is opened once.
	a, _, _ := h.Device(g.LV("vm"), lvm.LayerVolume)
	b, _, _ := h.Device(g.LV("vm"), lvm.LayerVolume)
	if a != b {
		t.Error("two readers of one device")
	}
}

func TestFrozen(t *testing.T) {
	h := host(t)
	g := group(t, h)
	if err := h.Frozen(g.ID, g.LV("s1").ID); err != nil {
		t.Errorf("an inactive snapshot: %v", err)
	}
	if err := h.Frozen(g.ID, g.LV("vm").ID); !errors.Is(err, hostlvm.ErrWritable) || !strings.Contains(err.Error(), "vg-vm is active and writable (nothing has it open)") {
		t.Errorf("an active volume: %v", err)
	}
	sh(t, "lvchange -q -ay -K vg/s1")
	if err := h.Frozen(g.ID, g.LV("s1").ID); !errors.Is(err, hostlvm.ErrWritable) {
		t.Errorf("an active snapshot: %v", err)
	}
	sh(t, "lvchange -q -an vg/s1; lvchange -q -pr vg/s1; lvchange -q -ay -K vg/s1")
	if err := h.Frozen(g.ID, g.LV("s1").ID); err != nil {
		t.Errorf("an active snapshot that is read-only: %v", err)
	}
	sh(t, "lvchange -q -an vg/s1; lvchange -q -prw vg/s1")
	if err := h.Frozen(g.ID, g.LV("thick").ID); !errors.Is(err, hostlvm.ErrWritable) {
		t.Errorf("an origin: %v", err)
	}
}

func TestThickSnapshot(t *testing.T) {
	h := host(t)
	g := group(t, h)
	// The five blocks of 4 KiB from 100 on, in chunks of 8 KiB.
	opt := lvm.OpenOptions{Device: h.Device}
	old, err := g.Open("old", opt)
	if err != nil {
		t.Fatal(err)
	}
	now, err := g.Open("thick", opt)
	if err != nil {
		t.Fatal(err)
	}
	var set []sparse.Extent
	for e, err := range lvm.Changed(old, now, 0, now.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		set = append(set, e)
	}
	if fmt.Sprint(set) != fmt.Sprint([]sparse.Extent{{Off: 100 << 12, Len: 6 << 12, Kind: sparse.Data}}) {
		t.Errorf("changed %v", set)
	}
	for name, v := range map[string]*lvm.Volume{"old": old, "thick": now} {
		got := make([]byte, v.Size())
		_, rerr := v.ReadAt(got, 0)
		want, err := os.ReadFile("/dev/vg/" + name)
		if rerr != nil || err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: equal %v, %v, %v", name, bytes.Equal(got, want), rerr, err)
		}
	}
	s, err := h.OpenThickSnapshot("vg/old", g.ID, g.LV("old").ID)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 16<<20)
	if _, err := s.Content.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("/dev/vg/old")
	if err != nil || !bytes.Equal(got, want) || s.ChunkSize != 8192 || s.ReadOnly {
		t.Errorf("chunks of %d bytes, read-only %v, content equal %v, %v", s.ChunkSize, s.ReadOnly, bytes.Equal(got, want), err)
	}
	if err := s.Recheck(); err != nil {
		t.Error(err)
	}
	sh(t, "dd if=/dev/urandom of=/dev/vg/thick bs=1M count=8 oflag=direct; sync")
	if err := s.Recheck(); !errors.Is(err, hostlvm.ErrUnhealthy) {
		t.Errorf("an overflown snapshot: %v", err)
	}
	if _, err := h.OpenThickSnapshot("vg/old", g.ID, g.LV("old").ID); !errors.Is(err, hostlvm.ErrUnhealthy) || !strings.HasPrefix(err.Error(), "vg/old: ") {
		t.Errorf("an overflown snapshot: %v", err)
	}
	if _, err := h.OpenThickSnapshot("vg/thick", g.ID, g.LV("thick").ID); err == nil {
		t.Error("an origin is taken for a snapshot")
	}
	if _, err := h.OpenThickSnapshot("vg/s1", g.ID, g.LV("s1").ID); !errors.Is(err, hostlvm.ErrInactive) {
		t.Errorf("inactive: %v", err)
	}
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("told to stop"))
	return ctx
}
