// Package sample unpacks the images of the testdata directory for tests.
package sample

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A Content is what testdata/README.md says that one state of one image holds.
type Content struct {
	File     string // name below testdata, without .gz
	Snapshot int    // place in the snapshot table, from 0; -1 for the active state
	Name     string // the snapshot's
	Size     int64  // bytes
	SHA256   string // lower-case hex
}

// Open unpacks the named images into one new directory, which goes with the test, and returns the first
// one's path. An image that needs others beside it (backing files, a data file) takes their names too.
// The files are sparse where they hold 4 KiB of zeros.
func Open(t testing.TB, name string, beside ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range append([]string{name}, beside...) {
		if err := unpack(filepath.Join(dir, n), filepath.Join(Dir(t), n+".gz")); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, name)
}

// Read unpacks one file of the testdata directory, which is stored with .gz behind its name.
func Read(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join(Dir(t), name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Contents reads the table of hashes in testdata/README.md.
func Contents(t testing.TB) []Content {
	t.Helper()
	f, err := os.Open(filepath.Join(Dir(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []Content
	for lines := bufio.NewScanner(f); lines.Scan(); {
		cells := strings.Split(strings.Trim(lines.Text(), "| "), " | ")
		if len(cells) != 5 || !strings.HasPrefix(cells[0], "`") {
			continue
		}
		c := Content{File: bare(cells[0]), Snapshot: -1, Name: bare(cells[2]), SHA256: bare(cells[4])}
		if cells[1] != "-" {
			c.Name = strings.ReplaceAll(c.Name, `\n`, "\n")
			if c.Snapshot, err = strconv.Atoi(cells[1]); err != nil {
				t.Fatalf("testdata/README.md: %q: %v", lines.Text(), err)
			}
		}
		if c.Size, err = strconv.ParseInt(cells[3], 10, 64); err != nil {
			t.Fatalf("testdata/README.md: %q: %v", lines.Text(), err)
		}
		all = append(all, c)
	}
	return all
}

func bare(cell string) string { return strings.Trim(cell, "`") }

// Dir is the testdata directory at the root of the module.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := find()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func find() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "testdata"), nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("sample: no go.mod above the working directory")
		}
	}
}

// Unpack is Open for examples, which have no test to go with: it unpacks the named images into dir, which must
// be there, and panics where it cannot.
func Unpack(dir string, names ...string) {
	from, err := find()
	if err != nil {
		panic(err)
	}
	for _, n := range names {
		if err := unpack(filepath.Join(dir, filepath.Base(n)), filepath.Join(from, n+".gz")); err != nil {
			panic(err)
		}
	}
}

func unpack(dst, src string) error {
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	defer out.Close()
	var size int64
	zeros := make([]byte, 4096)
	for block := make([]byte, 4096); ; {
		n, err := io.ReadFull(z, block)
		if !bytes.Equal(block[:n], zeros[:n]) {
			if _, err := out.WriteAt(block[:n], size); err != nil {
				return err
			}
		}
		size += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			if z.Close() != nil || err == io.ErrUnexpectedEOF && n == 0 {
				return io.ErrUnexpectedEOF
			}
			return out.Truncate(size)
		}
		if err != nil {
			return err
		}
	}
}
