package qcow2

import (
	"bytes"
	"testing"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"cbt/internal/testimg"
	"cbt/sparse/sparsetest"
)

// TestCompressed has clusters whose sectors lie in two host clusters, end past the end of the file,
// or are followed by other clusters and garbage.
func TestCompressed(t *testing.T) {
	for _, kind := range []string{"deflate", "zstd", "zstd frames"} {
		t.Run(kind, func(t *testing.T) {
			const cluster = 4096
			pack := func(p []byte) []byte { return deflate(t, p) }
			if kind != "deflate" {
				enc, err := zstd.NewWriter(nil)
				if err != nil {
					t.Fatal(err)
				}
				pack = func(p []byte) []byte {
					if kind == "zstd frames" {
						return enc.EncodeAll(p[1000:], enc.EncodeAll(p[:1000], nil))
					}
					return enc.EncodeAll(p, nil)
				}
			}
			q := testimg.NewQcow2(testimg.Qcow2Options{ClusterBits: 12, Size: 20*cluster + 512, Zstd: kind != "deflate"})
			q.L2(0)
			content := make([]byte, 20*cluster+512)
			type packed struct {
				guest int64
				raw   []byte
			}
			var all []packed
			for g := int64(0); g < 21; g += 2 {
				p := make([]byte, cluster)
				copy(p, numbered(1500+40*g, uint64(g)))
				copy(content[g*cluster:], p)
				all = append(all, packed{g * cluster, pack(p)})
			}
			b := q.Bytes()
			for _, c := range all {
				// One directly after the other, across host clusters.
				host := uint64(len(b))
				sectors := (host+uint64(len(c.raw))-1)/512 - host/512
				b = append(b, c.raw...)
				b = patched(b, u64(q.L2(c.guest), 1<<62|sectors<<(70-12)|host))
			}
			r := &recorder{b: b}
			img := r.open(t, Options{})
			sparsetest.View(t, img.Active(), content)

			// Small reads of one cluster decompress it once.
			img = r.open(t, Options{})
			for at := int64(0); at < cluster; at += 512 {
				if _, err := img.Active().ReadAt(make([]byte, 512), 2*cluster+at); err != nil {
					t.Fatal(err)
				}
				if reads := r.take(); at > 0 && len(reads) != 0 {
					t.Errorf("read %v again", reads)
				}
			}
			// If the last one is cut anywhere, reading it fails or returns the right bytes.
			last := all[len(all)-1]
			for cut := 1; cut < len(last.raw); cut++ {
				img, err := openBytes(b[:len(b)-cut], Options{})
				if err != nil {
					t.Fatal(err)
				}
				p := make([]byte, 512)
				if _, err := img.Active().ReadAt(p, last.guest); err == nil {
					if !bytes.Equal(p, content[last.guest:]) {
						t.Fatalf("cut by %d: other content", cut)
					}
				} else {
					wantFormatError(t, err, "guest offset 0x14000")
				}
			}
		})
	}
}

func deflate(t *testing.T, p []byte) []byte {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(p)
	w.Close()
	return out.Bytes()
}

// TestZstdWindow: a frame must not be able to ask for more memory than a reader should spend,
// whatever it holds.
func TestZstdWindow(t *testing.T) {
	q := testimg.NewQcow2(testimg.Qcow2Options{Size: 1 << 16, Zstd: true})
	q.CompressedBytes(0, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0}) // a window of 2 GiB
	img, err := openBytes(q.Bytes(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = img.Active().ReadAt(make([]byte, 512), 0)
	wantFormatError(t, err, "guest offset 0x0: window size exceeded")
}
