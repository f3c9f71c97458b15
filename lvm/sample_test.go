package lvm

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"cbt/internal/sample"
	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

// content is a row of testdata/lvm/README.md: what a kernel read.
type content struct {
	set, lv string
	size    int64
	sum     string
}

func contents(t testing.TB, set string) (all []content) {
	t.Helper()
	f, err := os.Open(filepath.Join(sample.Dir(t), "lvm", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		cells := strings.Split(strings.Trim(lines.Text(), "| "), " | ")
		if len(cells) != 4 || cells[0] != "`"+set+"`" {
			continue
		}
		size, err := strconv.ParseInt(cells[2], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, content{set, strings.Trim(cells[1], "`"), size, strings.Trim(cells[3], "`")})
	}
	if len(all) == 0 {
		t.Fatalf("testdata/lvm/README.md has no rows of the set %q", set)
	}
	return all
}

var unpacked sync.Map // of paths, by set and disk

var unpackDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "cbt-lvm-") })

func TestMain(m *testing.M) {
	status := m.Run()
	if dir, err := unpackDir(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(status)
}

// disks opens the disks of a set. They are unpacked once, as sparse files.
func disks(t testing.TB, set string) (all []Disk) {
	t.Helper()
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s-%d.img", set, i)
		src := filepath.Join(sample.Dir(t), "lvm", name+".gz")
		if _, err := os.Stat(src); errors.Is(err, os.ErrNotExist) && i > 0 {
			return all
		}
		once, _ := unpacked.LoadOrStore(name, sync.OnceValues(func() (string, error) { return unpack(src, name) }))
		path, err := once.(func() (string, error))()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, openDisk(t, path))
	}
}

func openDisk(t testing.TB, path string) Disk {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	raw, err := sparse.OpenRaw(f)
	if err != nil {
		t.Fatal(err)
	}
	return Disk{Name: filepath.Base(path), R: raw, Size: raw.Size()}
}

func unpack(src, name string) (string, error) {
	dir, err := unpackDir()
	if err != nil {
		return "", err
	}
	in, err := os.Open(src)
	if err != nil {
		return "", err
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		return "", err
	}
	out, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return "", err
	}
	defer out.Close()
	block, off := make([]byte, 64<<10), int64(0)
	for {
		n, err := io.ReadFull(z, block)
		if !sparse.IsZero(block[:n]) {
			if _, err := out.WriteAt(block[:n], off); err != nil {
				return "", err
			}
		}
		off += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return out.Name(), out.Truncate(off)
		}
		if err != nil {
			return "", err
		}
	}
}

// assemble returns the only group on the disks.
func assemble(t testing.TB, disks ...Disk) *Group {
	t.Helper()
	groups, err := Assemble(disks)
	if err != nil {
		t.Fatal(err)
	}
	if len(groups) != 1 {
		t.Fatalf("%d groups", len(groups))
	}
	return groups[0]
}

func mustOpen(t testing.TB, g *Group, name string) *Volume {
	t.Helper()
	v, err := g.Open(name, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustRead(t testing.TB, v sparse.View) []byte {
	t.Helper()
	b := make([]byte, v.Size())
	if _, err := sparse.ReadFull(v, b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// checkContent compares a volume with what the kernel read.
func checkContent(t testing.TB, g *Group, c content, conform bool) {
	t.Helper()
	v, err := g.Open(c.lv, OpenOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	if v.Size() != c.size {
		t.Errorf("%s has %d bytes, want %d", c.lv, v.Size(), c.size)
	}
	b := mustRead(t, v)
	if got := sum(b); got != c.sum {
		t.Errorf("%s: SHA-256 %s, the kernel read %s", c.lv, got, c.sum)
		return
	}
	if g.LV(c.lv).VolumeSize() != c.size {
		t.Errorf("%s: VolumeSize %d", c.lv, g.LV(c.lv).VolumeSize())
	}
	if conform {
		sparsetest.View(t, v, b)
	}
}

func checkView(t testing.TB, v sparse.View) {
	t.Helper()
	sparsetest.View(t, v, mustRead(t, v))
}
