package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/sample"
	"cbt/internal/testimg"
	"cbt/internal/testtool"
)

// TestMountHostile: whatever an image holds, its tree can be walked, and the mount ends.
func TestMountHostile(t *testing.T) {
	dir := sample.Dir(t)
	var names []string
	for _, pattern := range []string{"*.qcow2.gz", "lvm/*.img.gz", "vmstate/*.state.gz", "vmstate/*.qcow2.gz"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	work := t.TempDir()
	for _, name := range []string{"chain-base.raw", "datafile.data", "datafile-raw.data"} {
		if err := unpackSample(filepath.Join(dir, name+".gz"), filepath.Join(work, name)); err != nil {
			t.Fatal(err)
		}
	}
	shown := 0
	r := rand.New(rand.NewPCG(7, 7))
	for _, name := range names {
		path := filepath.Join(work, strings.TrimSuffix(filepath.Base(name), ".gz"))
		if err := unpackSample(name, path); err != nil {
			t.Fatal(err)
		}
		for round := range 3 {
			if round > 0 { // as it is, and with bytes that are something else
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				for range 20 {
					b[r.IntN(min(len(b), 1<<18))] = byte(r.Uint32())
				}
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if walkMount(t, path) {
				shown++
			}
		}
	}
	if shown < len(names)/2 {
		t.Errorf("only %d of %d could be mounted", shown, 3*len(names))
	}
}

// walkMount looks at all that a mount of path shows, and says whether it could be
// mounted.
func walkMount(t *testing.T, path string) bool {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "m")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	defer end()
	r, w := io.Pipe()
	var errOut bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- Run(ctx, Env{Stdin: strings.NewReader(""), Stdout: w, Stderr: &errOut},
			[]string{"mount", "--foreground", "--force", "--backing-format", "raw", path, dir})
		w.Close()
	}()
	if !bufio.NewScanner(r).Scan() {
		if c := <-code; c == 0 || strings.Contains(errOut.String(), "internal error") {
			t.Errorf("%s: exit %d: %s", path, c, errOut.String())
		}
		return false
	}
	p := make([]byte, 64<<10)
	// Errors are answers here; that the walk ends is what counts.
	_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		f, err := os.Open(name)
		if err != nil {
			return nil
		}
		defer f.Close()
		for _, off := range []int64{0, 1 << 20, 63 << 20} {
			_, _ = f.ReadAt(p, off)
		}
		_, _ = f.Seek(0, 3)
		return nil
	})
	end()
	<-code
	if strings.Contains(errOut.String(), "internal error") {
		t.Errorf("%s: %s", path, errOut.String())
	}
	return true
}

// TestMountCore: the core file that a mount shows is the one that ram dump writes.
func TestMountCore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	if err := unpackSample(filepath.Join(sample.Dir(t), "vmstate/snapshots.qcow2.gz"), path); err != nil {
		t.Fatal(err)
	}
	m := mountFor(t, path)
	for _, snap := range []string{"monday", "tuesday"} {
		want := filepath.Join(t.TempDir(), "core")
		if code, _, stderr := run(t, "ram", "dump", "-q", path+"@"+snap, "-o", want); code != 0 {
			t.Fatal(stderr)
		}
		core := m.path("snapshots/" + snap + "/ram/core.elf")
		if hashFile(t, core) != hashFile(t, want) {
			t.Errorf("%s: not what ram dump writes", snap)
		}
		f, err := elf.Open(core)
		if err != nil {
			t.Fatal(err)
		}
		if f.Type != elf.ET_CORE || len(f.Progs) < 3 {
			t.Errorf("%s: %v", snap, f.FileHeader)
		}
		f.Close()
		if out, err := testtool.Try(t, "readelf", "-l", core); err != nil || !strings.Contains(out, "CORE (Core file)") {
			t.Errorf("readelf: %v: %s", err, out)
		}
		if code, out, _ := run(t, "cat", path+"@"+snap); code == 0 && sha256.Sum256([]byte(out)) != hashFile(t, m.path("snapshots/"+snap+"/disk.raw")) {
			t.Errorf("%s: not what cat prints", snap)
		}
	}
}

// TestMountManySnapshots: an image with thousands of snapshots, each of which is opened only
// when it is looked at.
func TestMountManySnapshots(t *testing.T) {
	const n = 3000
	q := testimg.NewQcow2(testimg.Qcow2Options{Size: 1 << 20})
	q.Write(0, bytes.Repeat([]byte{7}, 1<<16))
	for i := range n {
		q.Snapshot(fmt.Sprint(i+1), fmt.Sprintf("day %d", i+1))
	}
	path := filepath.Join(t.TempDir(), "many.qcow2")
	if err := os.WriteFile(path, q.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	m := mountFor(t, path)
	entries, err := os.ReadDir(m.path("snapshots"))
	if err != nil || len(entries) != n {
		t.Fatal(len(entries), err)
	}
	p := make([]byte, 10)
	for _, i := range []int{1, 1500, n} {
		f, err := os.Open(m.path(fmt.Sprintf("snapshots/day %d/disk.raw", i)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(p, 0); err != nil || p[0] != 7 {
			t.Errorf("day %d: %v %v", i, p, err)
		}
		f.Close()
	}
}
