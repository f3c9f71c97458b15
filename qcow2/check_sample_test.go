package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cbt/internal/sample"
	"cbt/internal/testimg"
	"cbt/internal/testtool"
	"cbt/qcow2"
	"cbt/sparse"
)

// Every sample is judged as qemu-img judges it. Samples that qemu-img cannot open without a key are
// clean.
func TestCheckSamples(t *testing.T) {
	testtool.Need(t, "qemu-img")
	files, err := filepath.Glob(filepath.Join(sample.Dir(t), "*.qcow2.gz"))
	if err != nil || len(files) == 0 {
		t.Fatal("no samples", err)
	}
	beside := map[string][]string{
		"datafile.qcow2":     {"datafile.data"},
		"datafile-raw.qcow2": {"datafile-raw.data"},
		"chain-top.qcow2":    {"chain-mid.qcow2", "chain-base.raw"},
		"chain-mid.qcow2":    {"chain-base.raw"},
		"short.qcow2":        {"short-base.qcow2"},
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".gz")
		t.Run(name, func(t *testing.T) {
			path := sample.Open(t, name, beside[name]...)
			stats, faults, err := checkFile(t, path)
			var format *sparse.FormatError
			if name == "unknown-bit.qcow2" {
				if !errors.As(err, &format) || format.Field != "incompatible_features" {
					t.Errorf("unknown feature: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var q qemuCheck
			switch name {
			case "aes.qcow2", "luks.qcow2":
				q.Exit = 0
			default:
				if q = runQEMUCheck(t, path); q.Exit == 1 {
					t.Fatal(q.Text)
				}
			}
			// A cluster used by two tables is one corruption to QEMU, and two here.
			if name == "corrupt.qcow2" {
				q.Corruptions++
			}
			if stats.Corruptions != q.Corruptions || stats.Leaks != q.Leaks {
				t.Errorf("%d corruptions, %d leaks; qemu-img: %d, %d\n%v\n%s", stats.Corruptions, stats.Leaks, q.Corruptions, q.Leaks, faults, q.Text)
			}
			if stats.Dirty != (name == "dirty.qcow2") {
				t.Errorf("dirty: %t", stats.Dirty)
			}
		})
	}
}

// small returns an image of a few KiB with a snapshot and all kinds of clusters.
func small() []byte {
	q := testimg.NewQcow2(testimg.Qcow2Options{ClusterBits: 9, Size: 128 << 10})
	for i := range int64(20) {
		q.Write(i*3*512, bytes.Repeat([]byte{byte(i + 1)}, 512))
	}
	q.Compress(70<<10, bytes.Repeat([]byte{9}, 512))
	q.Snapshot("1", "monday")
	for i := range int64(20) {
		q.Write(i*5*512, bytes.Repeat([]byte{byte(i + 101)}, 512))
	}
	q.Compress(90<<10, bytes.Repeat([]byte{9}, 512))
	return q.Bytes()
}

// A cut image is refused or corrupt, wherever it is cut: only the last cluster may be incomplete.
func TestCheckCut(t *testing.T) {
	whole := small()
	check := func(b []byte) (qcow2.CheckStats, error) {
		return qcow2.Check(context.Background(), bytes.NewReader(b), int64(len(b)), nil)
	}
	if stats, err := check(whole); err != nil || stats.Corruptions+stats.Leaks != 0 {
		t.Fatalf("whole: %+v, %v", stats, err)
	}
	for n := range whole {
		stats, err := check(whole[:n])
		if err == nil && stats.Corruptions == 0 && n <= len(whole)-512 {
			t.Errorf("cut after %d of %d bytes: clean", n, len(whole))
		}
		var format *sparse.FormatError
		if err != nil && !errors.As(err, &format) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
}

func TestCheckOfOpenImage(t *testing.T) {
	b := small()
	b[len(b)-512*3] ^= 0x40
	var want, got []qcow2.Fault
	wantStats, err := qcow2.Check(context.Background(), bytes.NewReader(b), int64(len(b)), func(f qcow2.Fault) { want = append(want, f) })
	if err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(bytes.NewReader(b), int64(len(b)), qcow2.Options{})
	if err != nil {
		t.Fatal(err)
	}
	gotStats, err := img.Check(context.Background(), func(f qcow2.Fault) { got = append(got, f) })
	if err != nil || gotStats != wantStats || !slices.Equal(got, want) {
		t.Errorf("%+v %v, %v; want %+v %v", gotStats, got, err, wantStats, want)
	}
}

func TestCheckCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b := small()
	if _, err := qcow2.Check(ctx, bytes.NewReader(b), int64(len(b)), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// unreadable fails inside [from, to).
type unreadable struct {
	*bytes.Reader
	from, to int64
}

func (u unreadable) ReadAt(p []byte, off int64) (int, error) {
	if off < u.to && u.from < off+int64(len(p)) {
		return 0, errDisk
	}
	return u.Reader.ReadAt(p, off)
}

// A table that cannot be read is an error, and the others are still checked.
func TestCheckUnreadable(t *testing.T) {
	b, err := os.ReadFile(sample.Open(t, "v3.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	b[0x10007] |= 1 // a reserved bit in the refcount table
	for _, table := range []int64{0x20000, 0x30000, 0x1c0000, 0x1b0000, 0x230000} {
		var faults []qcow2.Fault
		r := unreadable{bytes.NewReader(b), table, table + 0x10000}
		stats, err := qcow2.Check(context.Background(), r, int64(len(b)), func(f qcow2.Fault) { faults = append(faults, f) })
		if !errors.Is(err, errDisk) {
			t.Errorf("unreadable at 0x%x: %v", table, err)
		}
		if len(faults) == 0 || faults[0].Off != 0x10000 || stats.Corruptions == 0 {
			t.Errorf("unreadable at 0x%x: faults %v", table, faults)
		}
		if stats.Leaks != 0 {
			t.Errorf("unreadable at 0x%x: what it leads to is called leaked: %v", table, faults)
		}
	}
}
