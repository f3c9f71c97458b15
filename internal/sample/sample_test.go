package sample

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/testtool"
)

// Files that an image needs beside it.
var beside = map[string][]string{
	"chain-mid.qcow2":    {"chain-base.raw"},
	"chain-top.qcow2":    {"chain-mid.qcow2", "chain-base.raw"},
	"short.qcow2":        {"short-base.qcow2"},
	"datafile.qcow2":     {"datafile.data"},
	"datafile-raw.qcow2": {"datafile-raw.data"},
}

func TestContentsAgreeWithQEMU(t *testing.T) {
	testtool.Need(t, "qemu-img")
	for _, c := range Contents(t) {
		if c.Snapshot >= 0 && c.File != "v2.qcow2" && c.File != "extl2.qcow2" {
			continue // convert -l has the wrong size after a resize; two files show that the table is in order
		}
		t.Run(c.File+"@"+c.Name, func(t *testing.T) {
			// QEMU looks for a relative data file in the working directory, not beside the image.
			t.Chdir(filepath.Dir(Open(t, c.File, beside[c.File]...)))
			args := []string{"convert", "-U", "-f", "qcow2", "-O", "raw"}
			if strings.HasSuffix(c.File, ".raw") {
				args[3] = "raw"
			}
			if c.Snapshot >= 0 {
				args = append(args, "-l", c.Name)
			}
			testtool.Run(t, "qemu-img", append(args, c.File, "plain")...)
			got, err := os.ReadFile("plain")
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(got)
			if hex.EncodeToString(sum[:]) != c.SHA256 || int64(len(got)) != c.Size {
				t.Errorf("%d bytes, SHA-256 %x; README.md says %d, %s", len(got), sum, c.Size, c.SHA256)
			}
		})
	}
}

func TestEveryImageIsInTheTable(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(Dir(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	packed, err := filepath.Glob(filepath.Join(Dir(t), "*.gz"))
	if err != nil || len(packed) < 20 {
		t.Fatalf("%d images, %v", len(packed), err)
	}
	for _, p := range packed {
		name := strings.TrimSuffix(filepath.Base(p), ".gz")
		if !strings.Contains(string(readme), "`"+name+"`") {
			t.Errorf("testdata/README.md does not name %s", name)
		}
		if info, err := os.Stat(p); err != nil || info.Size() > 256<<10 {
			t.Errorf("%s: above 256 KiB, or %v", p, err)
		}
	}
	names := map[string]bool{}
	for _, c := range Contents(t) {
		names[c.Name] = true
	}
	if !names["two\nlines"] || !names["Grüße aus Köln"] || len(Contents(t)) < 60 {
		t.Errorf("the table of hashes lacks rows: %d, %v", len(Contents(t)), names)
	}
}

func TestOpenIsSparseAndWhole(t *testing.T) {
	path := Open(t, "demo.qcow2", "v3.qcow2")
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), "v3.qcow2")); err != nil {
		t.Error(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.gz")
	good, err := os.ReadFile(filepath.Join(Dir(t), "v3.qcow2.gz"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, good[:len(good)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unpack(filepath.Join(t.TempDir(), "out"), bad); err == nil {
		t.Error("a cut file was unpacked")
	}
}
