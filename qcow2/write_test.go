package qcow2_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"cbt/internal/testtool"
	"cbt/qcow2"
	"cbt/sparse"
)

func writeFile(t *testing.T, path string, v sparse.View, opt qcow2.WriteOptions) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := qcow2.Write(context.Background(), f, v, opt); err != nil {
		t.Fatal(err)
	}
}

// agrees has qemu-img check an image of p: structure, content and geometry.
func agrees(t *testing.T, dir string, p *patchwork, opt qcow2.WriteOptions) {
	t.Helper()
	raw, img := filepath.Join(dir, "want.raw"), filepath.Join(dir, "got.qcow2")
	p.raw(t, raw)
	writeFile(t, img, p, opt)
	testtool.Run(t, "qemu-img", "check", "-f", "qcow2", img)
	testtool.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, img)
	var info struct {
		VirtualSize int64 `json:"virtual-size"`
		ClusterSize int64 `json:"cluster-size"`
		Dirty       bool  `json:"dirty-flag"`
		Format      string
		Specific    struct {
			Data struct{ Compat, CompressionType string }
		} `json:"format-specific"`
	}
	out := testtool.Run(t, "qemu-img", "info", "-f", "qcow2", "--output=json", img)
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		t.Fatal(err)
	}
	cluster := opt.ClusterSize
	if cluster == 0 {
		cluster = 65536
	}
	if info.VirtualSize != (p.size+511)/512*512 || info.ClusterSize != cluster || info.Dirty ||
		info.Format != "qcow2" || info.Specific.Data.Compat != "1.1" {
		t.Errorf("qemu-img info: %s", out)
	}
}

func TestWriteAgreesWithQEMU(t *testing.T) {
	testtool.Need(t, "qemu-img")
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	clusters := []int64{512, 1024, 4096, 0, 65536, 1 << 20, 2 << 20}
	for i := range 60 {
		opt := qcow2.WriteOptions{ClusterSize: clusters[i%len(clusters)], Workers: 1 + r.IntN(4)}
		unit := max(int(opt.ClusterSize), 4096)
		size := r.Int64N(int64(unit) * 40)
		switch r.IntN(4) {
		case 0:
			size = size / int64(unit) * int64(unit)
		case 1:
			size = size / 512 * 512
		}
		p := randomPatchwork(r, size, unit)
		t.Run(fmt.Sprintf("%d_cluster_%d_size_%d", i, opt.ClusterSize, size), func(t *testing.T) {
			agrees(t, dir, p, opt)
		})
	}
}

func TestWriteSizes(t *testing.T) {
	testtool.Need(t, "qemu-img")
	dir := t.TempDir()
	for _, size := range []int64{0, 1, 511, 512, 513, 65535, 65536, 65537, 512 << 20, 512<<20 + 1, 1 << 40, 1<<40 - 1, 2 << 50} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			p := &patchwork{size: size}
			if size > 0 {
				p.pieces = []piece{{0, sparse.Data, []byte{1}}}
			}
			if size > 1 {
				p.pieces = append(p.pieces, piece{size - 1, sparse.Data, []byte{2}})
			}
			if size <= 1<<40 { // the size that a raw file can have on any file system
				agrees(t, dir, p, qcow2.WriteOptions{})
				return
			}
			img := filepath.Join(dir, "large.qcow2")
			writeFile(t, img, p, qcow2.WriteOptions{})
			testtool.Run(t, "qemu-img", "check", img)
			testtool.Run(t, "qemu-io", "-r", "-f", "qcow2", "-c", "read -P 1 0 1",
				"-c", fmt.Sprintf("read -P 2 %d 1", size-1), "-c", "read -P 0 1 1M", img)
		})
	}
}

// The refcount blocks count themselves and the table that lists them, so each number of data
// clusters around the end of a block is a case of its own.
func TestWriteRefcountBoundaries(t *testing.T) {
	testtool.Need(t, "qemu-img")
	dir := t.TempDir()
	img := filepath.Join(dir, "i.qcow2")
	for _, around := range []int64{245, 500, 64*256 - 340} {
		for n := around; n < around+12; n++ {
			p := &patchwork{size: n * 512, pieces: []piece{{0, sparse.Data, bytes.Repeat([]byte{7}, int(n)*512)}}}
			writeFile(t, img, p, qcow2.WriteOptions{ClusterSize: 512})
			testtool.Run(t, "qemu-img", "check", img)
		}
	}
}

func TestWriteDeterministic(t *testing.T) {
	p := randomPatchwork(rand.New(rand.NewPCG(3, 4)), 9<<20+77, 10000)
	var images [][]byte
	for _, workers := range []int{1, 2, 7, 0} {
		var b growing
		if err := qcow2.Write(context.Background(), &b, p, qcow2.WriteOptions{Workers: workers}); err != nil {
			t.Fatal(err)
		}
		images = append(images, b.p)
	}
	// The same content, all of it declared as data.
	whole := &patchwork{size: p.size, pieces: []piece{{0, sparse.Data, make([]byte, p.size)}}}
	if _, err := p.ReadAt(whole.pieces[0].data, 0); err != nil {
		t.Fatal(err)
	}
	var b growing
	if err := qcow2.Write(context.Background(), &b, whole, qcow2.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	images = append(images, b.p)
	for i := range images {
		if !bytes.Equal(images[i], images[0]) {
			t.Errorf("image %d differs", i)
		}
	}
}

// growing is a file in memory.
type growing struct{ p []byte }

func (g *growing) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(g.p) {
		g.p = append(g.p, make([]byte, need-len(g.p))...)
	}
	return copy(g.p[off:], p), nil
}

func TestWriteProgressAndCancel(t *testing.T) {
	p := &patchwork{size: 40 << 20, pieces: []piece{{3 << 20, sparse.Data, bytes.Repeat([]byte{1}, 30<<20)}}}
	var seen []int64
	var b growing
	if err := qcow2.Write(context.Background(), &b, p, qcow2.WriteOptions{
		Progress: func(done int64) { seen = append(seen, done) },
	}); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(seen); i++ {
		if seen[i] <= seen[i-1] {
			t.Errorf("progress went from %d to %d", seen[i-1], seen[i])
		}
	}
	if len(seen) < 2 || seen[len(seen)-1] != p.size {
		t.Errorf("progress %v does not end at %d", seen, p.size)
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b = growing{}
	err := qcow2.Write(ctx, &b, p, qcow2.WriteOptions{Progress: func(int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if bytes.HasPrefix(b.p, []byte("QFI")) {
		t.Error("a cancelled Write left a header")
	}
}

var errDisk = errors.New("disk on fire")

type failing struct {
	sparse.View
	after int64
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.after {
		return 0, errDisk
	}
	return f.View.ReadAt(p, off)
}

type failingWriter struct {
	io.WriterAt
	after int64
}

func (f failingWriter) WriteAt(p []byte, off int64) (int, error) {
	if off >= f.after {
		return 0, errDisk
	}
	return f.WriterAt.WriteAt(p, off)
}

func TestWriteErrors(t *testing.T) {
	p := &patchwork{size: 9 << 20, pieces: []piece{{0, sparse.Data, bytes.Repeat([]byte{1}, 9<<20)}}}
	if err := qcow2.Write(context.Background(), &growing{}, failing{p, 4 << 20}, qcow2.WriteOptions{}); !errors.Is(err, errDisk) {
		t.Errorf("view fails: %v", err)
	}
	var b growing
	if err := qcow2.Write(context.Background(), failingWriter{&b, 1 << 20}, p, qcow2.WriteOptions{}); !errors.Is(err, errDisk) {
		t.Errorf("writer fails: %v", err)
	}
	if bytes.HasPrefix(b.p, []byte("QFI")) {
		t.Error("a failed Write left a header")
	}
	for _, bad := range []int64{-1, 1, 256, 513, 65536 * 3, 4 << 20} {
		if err := qcow2.Write(context.Background(), &growing{}, p, qcow2.WriteOptions{ClusterSize: bad}); err == nil {
			t.Errorf("cluster size %d accepted", bad)
		}
	}
	for size, cluster := range map[int64]int64{128<<30 + 1: 512, 2<<50 + 1: 65536, 1<<63 - 1: 2 << 20} {
		if err := qcow2.Write(context.Background(), &growing{}, sparse.Zeros(size), qcow2.WriteOptions{ClusterSize: cluster}); err == nil {
			t.Errorf("%d bytes in clusters of %d accepted", size, cluster)
		}
	}
}
