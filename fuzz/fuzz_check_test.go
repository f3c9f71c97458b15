package fuzz

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
	"time"

	"cbt/internal/testimg"
	"cbt/qcow2"
	"cbt/sparse"
)

// inMemory is a file that Write fills.
type inMemory struct{ b []byte }

func (m *inMemory) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(m.b) {
		m.b = append(m.b, make([]byte, need-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

// smallQcow2 are sound images of all layouts.
func smallQcow2(f *testing.F) (images [][]byte) {
	for _, opt := range []testimg.Qcow2Options{
		{ClusterBits: 9, Size: 100 << 10},
		{ClusterBits: 9, Size: 100 << 10, Version: 2},
		{ClusterBits: 9, Size: 64 << 10, RefcountOrder: 1},
		{ClusterBits: 10, Size: 64 << 10, RefcountOrder: 6},
		{ClusterBits: 14, Size: 64 << 10, ExtendedL2: true},
		{ClusterBits: 9, Size: 64 << 10, Zstd: true, Backing: "base", BackingFormat: "raw"},
	} {
		q := testimg.NewQcow2(opt)
		q.Write(0, bytes.Repeat([]byte{1}, 1<<opt.ClusterBits))
		q.Compress(32<<10, bytes.Repeat([]byte{2}, 1<<opt.ClusterBits))
		q.Snapshot("1", "monday")
		q.Write(0, bytes.Repeat([]byte{3}, 1<<opt.ClusterBits))
		images = append(images, q.Bytes())
	}
	var m inMemory
	content := bytes.Repeat([]byte("content"), 1000)
	if err := qcow2.Write(context.Background(), &m, sparse.Plain(bytes.NewReader(content), int64(len(content))), qcow2.WriteOptions{ClusterSize: 512}); err != nil {
		f.Fatal(err)
	}
	return append(images, m.b)
}

// patched writes eight bytes for each twelve of edits: where, and what.
func patched(image, edits []byte) []byte {
	b := bytes.Clone(image)
	for ; len(edits) >= 12; edits = edits[12:] {
		copy(b[int(binary.BigEndian.Uint32(edits))%len(b):], edits[4:12])
	}
	return b
}

// FuzzCheck checks any bytes as a qcow2 image, and sound images with edits. It
// must end, without a panic and without more memory than the bytes deserve;
// every fault must say where it is and what it breaks; and what Open accepts
// must be checked alike.
func FuzzCheck(f *testing.F) {
	images := smallQcow2(f)
	for i := range images {
		f.Add(uint8(i+1), []byte("\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x08\x00"))
		if len(images[i]) < 6<<10 {
			f.Add(uint8(0), images[i])
		}
	}
	f.Fuzz(func(t *testing.T, base uint8, b []byte) {
		if base > 0 {
			b = patched(images[(int(base)-1)%len(images)], b)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var corruptions, leaks, notes int64
		stats, err := qcow2.Check(ctx, bytes.NewReader(b), int64(len(b)), func(x qcow2.Fault) {
			n := int64(1)
			if x.Len > 0 {
				n = x.Len / clusterSize(b)
			}
			switch x.Kind {
			case qcow2.Corruption:
				corruptions += n
			case qcow2.Leak:
				leaks += n
			case qcow2.Note:
				notes += n
			}
			if x.Off < 0 || x.Len < 0 || x.Guest < -1 || x.Struct == "" || x.Msg == "" || x.Cite == "" {
				t.Errorf("fault %+v", x)
			}
		})
		runtime.ReadMemStats(&after)
		if used, limit := after.TotalAlloc-before.TotalAlloc, uint64(64<<20+500*len(b)); used > limit {
			t.Errorf("%d bytes allocated for %d", used, len(b))
		}
		var format *sparse.FormatError
		switch {
		case err != nil && !errors.As(err, &format):
			t.Fatalf("%T %v", err, err)
		case err != nil && (stats != qcow2.CheckStats{} || corruptions+leaks+notes > 0):
			t.Fatalf("an error and a result: %v, %+v", err, stats)
		case stats.Corruptions != corruptions || stats.Leaks != leaks || stats.Notes != notes:
			t.Errorf("%+v; reported %d, %d, %d", stats, corruptions, leaks, notes)
		}
		img, oerr := qcow2.Open(bytes.NewReader(b), int64(len(b)), qcow2.Options{AllowCorrupt: true})
		if oerr != nil {
			return
		}
		if err != nil {
			t.Fatalf("open, but cannot be checked: %v", err)
		}
		if again, err := img.Check(ctx, nil); err != nil || again != stats {
			t.Errorf("the open image: %+v, %v; want %+v", again, err, stats)
		}
	})
}

// clusterSize of an image whose header was found good.
func clusterSize(b []byte) int64 { return 1 << b[23] }
