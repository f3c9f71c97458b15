package qcow2

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"cbt/internal/testimg"
	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

// recorder records the reads from a file.
type recorder struct {
	b []byte

	mu    sync.Mutex
	reads [][2]int64 // offset, length
}

func (r *recorder) ReadAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	r.reads = append(r.reads, [2]int64{off, int64(len(p))})
	r.mu.Unlock()
	return bytes.NewReader(r.b).ReadAt(p, off)
}

// take returns the reads since the last call.
func (r *recorder) take() [][2]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	reads := r.reads
	r.reads = nil
	return reads
}

func (r *recorder) open(t *testing.T, opt Options) *Image {
	t.Helper()
	img, err := Open(r, int64(len(r.b)), opt)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// numbered returns n bytes that show where they come from.
func numbered(n int64, seed uint64) []byte {
	rnd := rand.New(rand.NewPCG(seed, 3))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

func TestReadAtJoinsClusters(t *testing.T) {
	q := testimg.NewQcow2(testimg.Qcow2Options{ClusterBits: 9, Size: 1 << 20})
	content := make([]byte, 1<<20)
	copy(content[64<<10:], numbered(200<<10, 1))
	q.L2(0)
	for g := int64(64 << 10); g < 264<<10; g += 32 << 10 {
		q.L2(g) // tables first, so that data lie together
	}
	q.Write(64<<10, content[64<<10:264<<10])
	r := &recorder{b: q.Bytes()}
	v := r.open(t, Options{}).Active()
	p := make([]byte, 200<<10)
	if _, err := v.ReadAt(p, 64<<10); err != nil || !bytes.Equal(p, content[64<<10:264<<10]) {
		t.Fatal(err)
	}
	r.take()
	if _, err := v.ReadAt(p[:199<<10], 64<<10+100); err != nil || !bytes.Equal(p[:199<<10], content[64<<10+100:263<<10+100]) {
		t.Fatal(err)
	}
	if reads := r.take(); len(reads) != 1 || reads[0][1] != 199<<10 {
		t.Errorf("reads %v, want one of %d bytes", reads, 199<<10)
	}
	sparsetest.View(t, v, content)
}

func TestL2Faults(t *testing.T) {
	const data = 1 << 16
	for _, c := range []struct {
		name          string
		opt           testimg.Qcow2Options
		entry, bitmap uint64
		want          string
	}{
		{"unaligned", testimg.Qcow2Options{}, data + 512, 0, "qcow2 L2 entry at 0x30000: 0x10200: host offset not cluster aligned"},
		{"unaligned zero", testimg.Qcow2Options{}, data + 513, 0, "host offset not cluster aligned"},
		{"reserved low", testimg.Qcow2Options{}, data + 2, 0, "reserved bits set"},
		{"reserved high", testimg.Qcow2Options{}, data | 1<<56, 0, "reserved bits set"},
		{"reserved alone", testimg.Qcow2Options{}, 1 << 61, 0, "reserved bits set"},
		{"zero in version 2", testimg.Qcow2Options{Version: 2}, 1, 0, "zero flag in a version 2 image"},
		{"zero in extended", testimg.Qcow2Options{ExtendedL2: true}, data | 1, 1, "zero flag in an extended entry"},
		{"both", testimg.Qcow2Options{ExtendedL2: true}, data, 1<<40 | 1<<8, "subclusters both allocated and zero"},
		{"no offset", testimg.Qcow2Options{ExtendedL2: true}, 0, 1, "subclusters allocated without a host offset"},
		{"compressed bitmap", testimg.Qcow2Options{ExtendedL2: true}, 1<<62 | data, 1, "subcluster bitmap of a compressed cluster"},
		{"compressed high offset", testimg.Qcow2Options{ClusterBits: 9}, 1<<62 | 1<<56, 0, "reserved bits set"},
		{"compressed in a data file", testimg.Qcow2Options{DataFile: "d"}, 1<<62 | data, 0, "compressed cluster in an image with an external data file"},
		{"elsewhere in a data file", testimg.Qcow2Options{DataFile: "d"}, 2 << 16, 0, "host offset in the external data file is not the guest offset"},
		{"past the end", testimg.Qcow2Options{}, 1 << 40, 0, "qcow2 data cluster at 0x10000000000: guest offset 0x10000: 65536 bytes there are past the end of the file"},
		{"compressed past the end", testimg.Qcow2Options{}, 1<<62 | 1<<40, 0, "qcow2 compressed cluster at 0x10000000000: guest offset 0x10000: past the end of the file"},
		{"compressed garbage", testimg.Qcow2Options{}, 1<<62 | data, 0, "qcow2 compressed cluster at 0x10000: guest offset 0x10000: "},
		{"zstd garbage", testimg.Qcow2Options{Zstd: true}, 1<<62 | data, 0, "qcow2 compressed cluster at 0x10000: guest offset 0x10000: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.opt.Size = 3 << 16
			q := testimg.NewQcow2(c.opt)
			cluster := int64(1) << 16
			if c.opt.ClusterBits != 0 {
				cluster = 1 << c.opt.ClusterBits
			}
			q.Write(0, []byte("sound")) // in a data file at 0: set below
			q.Entry(0, 0, 0)
			q.Entry(cluster, c.entry, c.bitmap)
			b := q.Bytes()
			img, err := openBytes(b, Options{Data: func(string) (io.ReaderAt, int64, error) { return bytes.NewReader(make([]byte, 1<<20)), 1 << 20, nil }})
			if err != nil {
				t.Fatal(err)
			}
			v := img.Active()
			want := strings.ReplaceAll(c.want, "0x30000", fmt.Sprintf("%#x", q.L2(cluster)))
			n, err := v.ReadAt(make([]byte, 2*cluster), 0)
			wantFormatError(t, err, want)
			if int64(n) != cluster {
				t.Errorf("%d bytes before the error, want %d", n, cluster)
			}
			if strings.Contains(c.name, "past the end") || strings.Contains(c.name, "garbage") {
				return // metadata are sound
			}
			_, err = sparse.Collect(v.Extents(0, v.Size()))
			wantFormatError(t, err, want)
			for _, err = range v.Map(0, v.Size()) {
			}
			wantFormatError(t, err, want)
		})
	}
}

func TestL1Faults(t *testing.T) {
	for entry, want := range map[uint64]string{
		1 << 63:           "", // COPIED without a table
		1 << 16:           "", // the L1 table read as an L2 table: QEMU does too
		1:                 "qcow2 L1 entry at 0x10000: 0x1: reserved bits set",
		1<<62 | 1<<16:     "reserved bits set",
		1<<16 | 512:       "offset of the L2 table not cluster aligned",
		1 << 50:           "qcow2 L2 table at 0x4000000000000: 65536 bytes at 0x4000000000000 are not inside the file",
		1<<56 - 1<<16:     "qcow2 L2 table at 0xffffffffff0000: 65536 bytes",
		1<<63 | 1<<16 | 4: "reserved bits set",
	} {
		q := testimg.NewQcow2(testimg.Qcow2Options{Size: 1 << 20})
		b := q.Bytes()
		img, err := openBytes(patched(b, u64(q.L1(0), entry)), Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = img.Active().ReadAt(make([]byte, 1<<16), 1<<16)
		if want == "" {
			if err != nil {
				t.Errorf("%#x: %v", entry, err)
			}
			continue
		}
		wantFormatError(t, err, want)
	}
}

// TestShortFile: the cluster that holds the end of the disk may be incomplete in the file, but the
// part that the disk shows must be there.
func TestShortFile(t *testing.T) {
	q := testimg.NewQcow2(testimg.Qcow2Options{Size: 2<<16 + 1000})
	q.L2(0)
	b := q.Bytes()
	host := int64(len(b)) // after everything else
	b = patched(b, u64(q.L2(2<<16), uint64(host)|1<<63))
	content := numbered(1000, 2)
	img, err := openBytes(append(b, content...), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, img.Active()); !bytes.Equal(got[2<<16:], content) {
		t.Error("other content")
	}
	img, err = openBytes(append(b, content[:999]...), Options{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := img.Active().ReadAt(make([]byte, 2<<16+1000), 0)
	wantFormatError(t, err, fmt.Sprintf("qcow2 data cluster at %#x: guest offset 0x20000: 1000 bytes there are past the end of the file of %d bytes", host, host+999))
	if n != 2<<16 {
		t.Errorf("%d bytes before the error", n)
	}
	if _, err := img.Active().ReadAt(make([]byte, 999), 2<<16); err != nil {
		t.Errorf("what is there: %v", err)
	}
}

func TestFailingDisk(t *testing.T) {
	q := testimg.NewQcow2(testimg.Qcow2Options{Size: 1 << 20})
	host := q.Write(0, numbered(1<<16, 1))
	r := &failingAt{b: q.Bytes(), from: host}
	img, err := Open(r, int64(len(r.b)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = img.Active().ReadAt(make([]byte, 100), 50)
	if err == nil || !strings.Contains(err.Error(), "input/output error") || strings.Contains(err.Error(), "past the end") {
		t.Error(err)
	}
}

type failingAt struct {
	b    []byte
	from int64
}

func (f *failingAt) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from && off < f.from+1<<16 {
		return 0, fmt.Errorf("read at %d: input/output error", off)
	}
	return bytes.NewReader(f.b).ReadAt(p, off)
}
