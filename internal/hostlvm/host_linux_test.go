//go:build !cbtlive

package hostlvm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"cbt/internal/dm"
	"cbt/internal/testtool"
)

func TestReadBlockDevice(t *testing.T) {
	dir := t.TempDir()
	put := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("uevent", "MAJOR=8\nMINOR=2\nDEVNAME=cciss/c0d0p2\nDEVTYPE=partition\n")
	put("size", "2048\n")
	put("holders/dm-3/dm/uuid", lvUUID+"\n")
	want := blockDevice{node: "/dev/cciss/c0d0p2", number: dm.Number{Major: 8, Minor: 2}, sectors: 2048, holders: []string{lvUUID}}
	check := func(passed bool) {
		t.Helper()
		got, err := readBlockDevice(dir)
		if err != nil || !reflect.DeepEqual(got, want) || got.passedOver() != passed {
			t.Errorf("%+v, passed over %v, %v", got, got.passedOver(), err)
		}
	}
	check(false)
	put("c0d0p3/partition", "3\n")
	want.partitioned = true
	check(true)
	put("dm/uuid", "CRYPT-LUKS2-x\n")
	put("dm/suspended", "1\n")
	put("hidden", "1\n")
	put("holders/md0/x", "")
	want.uuid, want.suspended, want.hidden, want.holders = "CRYPT-LUKS2-x", true, true, []string{lvUUID, "md0"}
	check(true)
}

const lvUUID = "LVM-AcHmQh8gKRcbBPaWPUiLMAZKUFlgBKCXuefkOC3nfLN7nJ0eapYhw26sH1aUODEA"

func TestPassedOver(t *testing.T) {
	plain := blockDevice{node: "/dev/sda", number: dm.Number{Major: 8}, sectors: 1}
	if plain.passedOver() {
		t.Error("a plain disk is passed over")
	}
	for what, change := range map[string]func(*blockDevice){
		"empty":            func(b *blockDevice) { b.sectors = 0 },
		"hidden":           func(b *blockDevice) { b.hidden = true },
		"no node":          func(b *blockDevice) { b.node = "" },
		"partitioned":      func(b *blockDevice) { b.partitioned = true },
		"floppy":           func(b *blockDevice) { b.number.Major = 2 },
		"optical":          func(b *blockDevice) { b.number.Major = 11 },
		"volume":           func(b *blockDevice) { b.uuid = lvUUID },
		"layer of one":     func(b *blockDevice) { b.uuid = lvUUID + "-real" },
		"md member":        func(b *blockDevice) { b.holders = []string{"md0"} },
		"multipath member": func(b *blockDevice) { b.holders = []string{"mpath-36001405"} },
		"encrypted":        func(b *blockDevice) { b.holders = []string{lvUUID, "CRYPT-LUKS2-x"} },
	} {
		b := plain
		change(&b)
		if !b.passedOver() {
			t.Errorf("%s: %+v is not passed over", what, b)
		}
	}
	for what, change := range map[string]func(*blockDevice){
		"used by LVM": func(b *blockDevice) { b.holders = []string{lvUUID} },
		"multipath":   func(b *blockDevice) { b.uuid = "mpath-36001405" },
	} {
		b := plain
		change(&b)
		if b.passedOver() {
			t.Errorf("%s: %+v is passed over", what, b)
		}
	}
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "lock")
	ref := PoolRef{VG: "a-b", Pool: "c"}
	l, err := lockPool(t.Context(), dir, ref, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "thin-pool-abc")); err != nil {
		t.Error(err)
	}
	if _, err := lockPool(t.Context(), dir, ref, 0); !errors.Is(err, ErrBusy) {
		t.Errorf("a second lock: %v", err)
	}
	if err := l.record(77); err != nil {
		t.Fatal(err)
	}
	if got := l.left(77); !strings.Contains(got, "process ") {
		t.Errorf("left %q", got)
	}
	if got := l.left(78); got != "" {
		t.Errorf("another block: left %q", got)
	}
	if err := l.record(0); err != nil || l.left(78) == "" {
		t.Errorf("killed while it was taken: left %q, %v", l.left(78), err)
	}
	if err := l.erase(); err != nil || l.left(77) != "" {
		t.Errorf("erased: left %q, %v", l.left(77), err)
	}
	if other, err := lockPool(t.Context(), dir, PoolRef{VG: "a-b", Pool: "d"}, 0); err != nil {
		t.Errorf("another pool: %v", err)
	} else {
		other.unlock()
	}
	time.AfterFunc(150*time.Millisecond, l.unlock)
	again, err := lockPool(t.Context(), dir, ref, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer again.unlock()
	ctx, cancel := context.WithCancelCause(t.Context())
	told := errors.New("told to stop")
	time.AfterFunc(50*time.Millisecond, func() { cancel(told) })
	if _, err := lockPool(ctx, dir, ref, time.Minute); !errors.Is(err, told) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestLockDirectoryMustBeOurs(t *testing.T) {
	for what, prepare := range map[string]func(dir string) error{
		"writable by all": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) },
		"a link":          func(dir string) error { return os.Symlink(filepath.Dir(dir), dir) },
		"a file":          func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
		"a link inside": func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.Symlink(filepath.Join(dir, "x"), filepath.Join(dir, "thin-pool-ab")))
		},
	} {
		dir := filepath.Join(t.TempDir(), "cbt")
		if err := prepare(dir); err != nil {
			t.Fatal(err)
		}
		if l, err := lockPool(t.Context(), dir, PoolRef{VG: "a", Pool: "b"}, 0); err == nil {
			l.unlock()
			t.Errorf("%s: locked", what)
		} else if !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestDirectOnLoop(t *testing.T) {
	want := make([]byte, 3<<20+512)
	for i := range want {
		want[i] = byte(i * 7 / 5)
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, sector := range []string{"512", "4096"} {
		d, err := OpenDirect(testtool.Loop(t, path, "--sector-size="+sector))
		if err != nil {
			t.Fatal(err)
		}
		want := want
		if sector == "4096" {
			if n, err := d.ReadAt(make([]byte, 8192), 3<<20-4096); n != 4096 || err == nil || err == io.EOF {
				t.Errorf("an eighth of a block at the end: %d, %v", n, err)
			}
			want = want[:3<<20]
		}
		got, err := io.ReadAll(io.NewSectionReader(d, 0, int64(len(want))))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("sectors of %s: %d bytes of %d, equal %v, %v", sector, len(got), d.Size(), bytes.Equal(got, want), err)
		}
		for _, r := range [][2]int{{1, 1}, {511, 2}, {4095, 2}, {5, 2 << 20}, {1 << 20, 1}, {len(want) - 1, 1}} {
			p := make([]byte, r[1])
			if n, err := d.ReadAt(p, int64(r[0])); n != len(p) || err != nil || !bytes.Equal(p, want[r[0]:r[0]+r[1]]) {
				t.Errorf("sectors of %s: %d bytes at %d: %d, %v", sector, r[1], r[0], n, err)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}
