package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"cbt/internal/sample"
	"cbt/sparse"
)

// viewsOf returns the states of an image that can be opened, by the name of the snapshot; the name
// of the active state is empty.
func viewsOf(img *Image) map[string]*View {
	views := map[string]*View{"": img.Active()}
	for i, s := range img.Snapshots() {
		if v, err := img.Snapshot(i); err == nil {
			views[s.Name] = v
		}
	}
	return views
}

// TestCut cuts an image at every offset: what can still be read is equal to the whole image.
func TestCut(t *testing.T) {
	b := smallImage().Bytes()
	img, err := openBytes(b, Options{Backing: smallBase})
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string][]byte)
	for state, v := range viewsOf(img) {
		want[state] = mustRead(t, v)
	}
	opened, reads := 0, 0
	step := 1
	if testing.Short() {
		step = 13
	}
	for size := 0; size < len(b); size += step {
		img, err := openBytes(b[:size:size], Options{Backing: smallBase})
		if err != nil {
			wantFormatError(t, err, "")
			continue
		}
		opened++
		reads += checkCut(t, fmt.Sprintf("cut at %d", size), img, want, 512)
	}
	if opened == 0 || reads == 0 {
		t.Errorf("%d cuts opened, %d blocks read: shows nothing", opened, reads)
	}
	t.Logf("%d bytes: %d cuts opened, %d blocks of 512 bytes read", len(b), opened, reads)
}

// checkCut reads each block of each state and returns how many it could read.
func checkCut(t *testing.T, name string, img *Image, want map[string][]byte, block int) (reads int) {
	t.Helper()
	p := make([]byte, block)
	for state, v := range viewsOf(img) {
		whole := want[state]
		if whole == nil {
			continue
		}
		if int64(len(whole)) != v.Size() {
			t.Errorf("%s: state %q of %d bytes", name, state, v.Size())
			continue
		}
		for off := 0; off < len(whole); off += len(p) {
			n, err := v.ReadAt(p, int64(off))
			if !bytes.Equal(p[:n], whole[off:off+n]) {
				t.Fatalf("%s: state %q: other bytes at %d", name, state, off)
			}
			if err == nil {
				reads++
			} else if err != io.EOF {
				var fe *sparse.FormatError
				if !errors.As(err, &fe) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
	return reads
}

// TestCutSamples cuts images made by QEMU at some offsets.
func TestCutSamples(t *testing.T) {
	for _, name := range []string{"v2.qcow2", "cluster-512.qcow2", "cluster-2m.qcow2", "extl2.qcow2", "zstd.qcow2", "zlib.qcow2", "sizes.qcow2"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(sample.Open(t, name))
			if err != nil {
				t.Fatal(err)
			}
			if name == "sizes.qcow2" {
				b = b[:min(len(b), 16<<20)]
			}
			img, err := openBytes(b, Options{})
			if err != nil {
				t.Fatal(err)
			}
			want := make(map[string][]byte)
			for state, v := range viewsOf(img) {
				if v.Size() <= 8<<20 {
					want[state] = mustRead(t, v)
				}
			}
			rnd := rand.New(rand.NewPCG(uint64(len(b)), 4))
			opened, reads := 0, 0
			for range 25 {
				size := rnd.IntN(len(b))
				if rnd.IntN(2) == 0 {
					size = len(b) - 1 - rnd.IntN(min(len(b), 200_000))
				}
				if img, err := openBytes(b[:size:size], Options{}); err == nil {
					opened++
					reads += checkCut(t, fmt.Sprintf("cut at %d", size), img, want, 16<<10)
				}
			}
			if opened == 0 || reads == 0 {
				t.Errorf("%d cuts opened, %d blocks read: shows nothing", opened, reads)
			}
		})
	}
}
