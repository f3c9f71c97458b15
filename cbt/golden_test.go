package cbt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cbt/sparse"
)

// goldens are deltas of version 1, with the SHA-256 of what they lead to. Every later version must
// read them. They are never changed: a writer that writes other bytes gets new ones in addition.
var goldens = []struct {
	file    string
	chain   []string // oldest first
	content map[string]string
}{
	{"v1-smallest.cbt", nil, map[string]string{"disk/0": "3c5acbbb3322cf24728453fc34d1926a0d78cee098d64ea795102d9d5dafc508"}},
	{"v1-full.cbt", nil, map[string]string{"disk/0": "a699736d61d070098b8c2520f29968c386596dfc4c39391958a9642535b2c8df"}},
	{"v1-grown.cbt", []string{"v1-full.cbt"}, map[string]string{"disk/0": "dd95a8fef2afecb16015f1e9b0c7588ddb6d0fe308cfc181b03e5e7f91f81bbd"}},
	{"v1-streams.cbt", nil, map[string]string{
		"disk/sda":   "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"disk/sdb":   "36787dfafc82db8dee91328fa0218b855afa09e11fac4c77623e2fc77d7512cb",
		"ram/pc.ram": "fcdb22e69b7c4bdf48549dedd1d80b3f63031ef69d0a0a238ccd79d20e20f2ca",
		"vmstate":    "55856e73e93ee1c43c2b49140f3d0758902af70efe9448e93de07743094e4892",
	}},
	{"v1-named.cbt", nil, map[string]string{
		"disk/sda": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"disk/sdb": "36787dfafc82db8dee91328fa0218b855afa09e11fac4c77623e2fc77d7512cb",
	}},
}

// named makes a delta that names its machine and disks.
func named(t *testing.T) []byte {
	h := Header{Version: Version, Consistency: Crash, Machine: "vm1"}
	var src []Source
	for i, name := range []string{"disk/sda", "disk/sdb"} {
		m := img(bytes.Repeat([]byte{byte(i), 0, 'x'}, 3000*i))
		h.Streams = append(h.Streams, Stream{Name: name, Size: m.Size(), To: "p", Full: true, Source: "file:0123456789abcdef0123456789abcde" + name[7:]})
		src = append(src, Source{New: m})
	}
	return mustWrite(t, h, src, Options{})
}

// severalStreams makes a delta of two disks and a machine's RAM.
func severalStreams(t *testing.T) []byte {
	at := time.Date(2026, 11, 22, 20, 0, 0, 123456000, time.UTC)
	h := Header{Version: Version, Consistency: Full, Instant: &at}
	var src []Source
	for i, name := range []string{"disk/sda", "disk/sdb", "ram/pc.ram", "vmstate"} {
		m := img(bytes.Repeat([]byte{byte(i), 0, 'x'}, 3000*i))
		h.Streams = append(h.Streams, Stream{Name: name, Size: m.Size(), To: "p", Full: true})
		src = append(src, Source{New: m})
	}
	return mustWrite(t, h, src, Options{})
}

func TestGoldenFiles(t *testing.T) {
	if *update {
		chain := smallChain(t)
		for name, b := range map[string][]byte{
			"v1-smallest.cbt": smallest(t), "v1-full.cbt": chain[0], "v1-grown.cbt": chain[1], "v1-streams.cbt": severalStreams(t), "v1-named.cbt": named(t),
		} {
			if err := os.WriteFile(filepath.Join("testdata", name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	open := func(name string) *Delta {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Verify(context.Background(), bytes.NewReader(b), VerifyOptions{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		d, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return d
	}
	for _, g := range goldens {
		d := open(g.file)
		var others []*Delta
		for _, name := range g.chain {
			others = append(others, open(name))
		}
		if len(d.Header.Streams) != len(g.content) {
			t.Errorf("%s: %d streams", g.file, len(d.Header.Streams))
		}
		for name, want := range g.content {
			layers, err := Chain(d, d.Stream(name), others)
			if err != nil {
				t.Fatalf("%s: %s: %v", g.file, name, err)
			}
			s, err := NewStack(layers...)
			if err != nil {
				t.Fatal(err)
			}
			content := make([]byte, s.Size())
			if _, err := sparse.ReadFull(s, content, 0); err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(content)
			if got := hex.EncodeToString(sum[:]); got != want {
				t.Errorf("%s: %s has sha256 %s, want %s", g.file, name, got, want)
			}
		}
	}
}

// The writer still writes what it wrote when the golden files were made.
func TestWriterIsStable(t *testing.T) {
	chain := smallChain(t)
	for name, b := range map[string][]byte{
		"v1-smallest.cbt": smallest(t), "v1-full.cbt": chain[0], "v1-grown.cbt": chain[1], "v1-streams.cbt": severalStreams(t), "v1-named.cbt": named(t),
	} {
		if want, err := os.ReadFile(filepath.Join("testdata", name)); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: the writer writes other bytes (%v)", name, err)
		}
	}
}
