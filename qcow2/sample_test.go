package qcow2

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"cbt/internal/sample"
	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

// besides lists the files that a sample image needs beside it.
var besides = map[string][]string{
	"chain-mid.qcow2":    {"chain-base.raw"},
	"chain-top.qcow2":    {"chain-mid.qcow2", "chain-base.raw"},
	"short.qcow2":        {"short-base.qcow2"},
	"datafile.qcow2":     {"datafile.data"},
	"datafile-raw.qcow2": {"datafile-raw.data"},
}

// TestSamples compares every state of every sample image with what qemu-img read right after that
// state was made.
func TestSamples(t *testing.T) {
	for _, c := range sample.Contents(t) {
		if strings.HasSuffix(c.File, ".raw") {
			continue
		}
		t.Run(c.File+"/"+c.Name, func(t *testing.T) {
			t.Parallel()
			img := mustOpen(t, sample.Open(t, c.File, besides[c.File]...))
			v := img.Active()
			if c.Snapshot >= 0 {
				v = mustSnapshot(t, img, c.Snapshot)
				if v.Snapshot().Name != c.Name {
					t.Errorf("snapshot %d is %q, want %q", c.Snapshot, v.Snapshot().Name, c.Name)
				}
			}
			if v.Size() != c.Size {
				t.Errorf("%d bytes, want %d", v.Size(), c.Size)
			}
			sum := sha256.New()
			if _, err := io.Copy(sum, io.NewSectionReader(v, 0, v.Size())); err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(sum.Sum(nil)); got != c.SHA256 {
				t.Errorf("SHA-256 %s, want %s", got, c.SHA256)
			}
			if v.Size() <= 5<<20 {
				sparsetest.View(t, v, mustRead(t, v))
			}
			if err := img.Recheck(v); err != nil {
				t.Errorf("Recheck: %v", err)
			}
		})
	}
}

// TestSamplesRefused has the message for each image that must not be read.
func TestSamplesRefused(t *testing.T) {
	for _, c := range []struct {
		file, want string
		is         error
	}{
		{"unknown-bit.qcow2", `qcow2 header at 0x48: incompatible_features 0x20: unknown: bit 5, which the image does not name`, nil},
		{"corrupt.qcow2", "qcow2 header at 0x48: incompatible_features 0x2: " + ErrCorrupt.Error(), ErrCorrupt},
		{"aes.qcow2", "qcow2 header at 0x20: crypt_method 0x1: AES: encrypted images are not supported", ErrEncrypted},
		{"luks.qcow2", "qcow2 header at 0x20: crypt_method 0x2: LUKS: encrypted images are not supported", ErrEncrypted},
	} {
		t.Run(c.file, func(t *testing.T) {
			_, err := openFiles(t, sample.Open(t, c.file))
			var fe *sparse.FormatError
			if !errors.As(err, &fe) || err.Error() != c.want || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}
