package sparse_test

import (
	"bytes"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/sparse"
)

func openTarget(t *testing.T, path string) sparse.Target {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	target, err := sparse.OpenTarget(f)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func newTarget(t *testing.T, content []byte) (sparse.Target, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "target.raw")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return openTarget(t, path), path
}

// exerciseTarget writes and zeroes at random, and keeps a record of what must be there.
func exerciseTarget(t *testing.T, target sparse.Target, want []byte, path string, ops int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(11, uint64(len(want))))
	for i := range ops {
		off := rnd.Int64N(int64(len(want)) + 1)
		if rnd.IntN(2) == 0 {
			off = off / 4096 * 4096
		}
		n := min(rnd.Int64N(1<<rnd.IntN(19)), int64(len(want))-off)
		if rnd.IntN(2) == 0 {
			n = n / 512 * 512
		}
		if rnd.IntN(2) == 0 {
			p := noise(n, uint64(i))
			if got, err := target.WriteAt(p, off); err != nil || int64(got) != n {
				t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", n, off, got, err)
			}
			copy(want[off:], p)
		} else {
			if err := target.Zero(off, n); err != nil {
				t.Fatalf("Zero(%d, %d): %v", off, n, err)
			}
			clear(want[off : off+n])
		}
		got := make([]byte, min(n+8192, int64(len(want))-max(0, off-4096)))
		if _, err := sparse.ReadFull(target, got, max(0, off-4096)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want[max(0, off-4096):][:len(got)]) {
			t.Fatalf("operation %d, %d bytes at %d: wrong bytes around it", i, n, off)
		}
	}
	if err := target.Sync(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("the file does not hold what was written")
	}
}

func TestTargetFile(t *testing.T) {
	want := noise(3<<20+123, 5)
	target, path := newTarget(t, want)
	if target.Size() != int64(len(want)) {
		t.Errorf("Size() = %d, want %d", target.Size(), len(want))
	}
	exerciseTarget(t, target, want, path, 400)
}

func TestTargetFileTruncate(t *testing.T) {
	target, path := newTarget(t, noise(100_000, 1))
	for _, size := range []int64{50_001, 200_000, 0, 4096} {
		if err := target.Truncate(size); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(path)
		if err != nil || fi.Size() != size || target.Size() != size {
			t.Errorf("Truncate(%d): file of %d bytes, Size() = %d, %v", size, fi.Size(), target.Size(), err)
		}
	}
	if got, _ := os.ReadFile(path); !sparse.IsZero(got) {
		t.Error("what Truncate cut off has come back")
	}
	if err := target.Truncate(-1); err == nil || target.Size() != 4096 {
		t.Errorf("Truncate(-1): %v, Size() = %d", err, target.Size())
	}
}

func TestTargetOutside(t *testing.T) {
	content := noise(10_000, 1)
	target, path := newTarget(t, content)
	for _, r := range [][2]int64{{-1, 1}, {9_999, 2}, {10_000, 1}, {10_001, 0}, {math.MaxInt64, 1}} {
		if n, err := target.WriteAt(make([]byte, r[1]), r[0]); err == nil || n != 0 {
			t.Errorf("WriteAt(%d bytes, %d) = %d, %v", r[1], r[0], n, err)
		}
		if err := target.Zero(r[0], r[1]); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("Zero(%d, %d): %v", r[0], r[1], err)
		}
	}
	for _, r := range [][2]int64{{0, -1}, {1, math.MaxInt64}} {
		if err := target.Zero(r[0], r[1]); err == nil {
			t.Errorf("Zero(%d, %d) was done", r[0], r[1])
		}
	}
	if n, err := target.ReadAt(make([]byte, 10), 9_995); n != 5 || err != io.EOF {
		t.Errorf("ReadAt across the end = %d, %v", n, err)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, content) {
		t.Error("a refused call changed the file")
	}
	if err := os.Truncate(path, 5_000); err != nil {
		t.Fatal(err)
	}
	if n, err := target.ReadAt(make([]byte, 10), 4_995); err != io.ErrUnexpectedEOF {
		t.Errorf("ReadAt across the end of a file cut short = %d, %v", n, err)
	}
}
