package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/report"
	"cbt/internal/sample"
	"cbt/internal/testtool"
	"cbt/qcow2"
	"cbt/sparse"
)

func newTestOpener(t *testing.T, opt openerOptions) *opener {
	t.Helper()
	a := &app{Env: Env{Getenv: func(string) string { return "" }, Stderr: io.Discard}}
	o, err := a.newOpener(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

func mustOpen(t *testing.T, o *opener, ref string, opt refOptions) *source {
	t.Helper()
	s, err := o.open(t.Context(), ref, opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Every image of testdata, in every state, is what QEMU read from it, and
// nothing of it is changed.
func TestOpenSamples(t *testing.T) {
	for _, c := range sample.Contents(t) {
		t.Run(c.File+"/"+c.Name, func(t *testing.T) {
			path := sample.Open(t, c.File, beside[c.File]...)
			before := hashFiles(t, filepath.Dir(path))
			o := newTestOpener(t, openerOptions{Force: c.File == "corrupt.qcow2"})
			var s *source
			if c.Snapshot < 0 {
				s = mustOpen(t, o, path, refOptions{})
			} else {
				s = openNth(t, o, path, c.Snapshot)
			}
			if (c.Snapshot < 0) != (s.Point == "") && s.Format == formatQcow2 {
				t.Errorf("point %q", s.Point)
			}
			h := sha256.New()
			if err := sparse.WriteRange(t.Context(), h, s.View, 0, s.View.Size(), report.NoBar{}.Add); err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(h.Sum(nil)); got != c.SHA256 || s.View.Size() != c.Size {
				t.Errorf("%d bytes %s, want %d bytes %s", s.View.Size(), got, c.Size, c.SHA256)
			}
			if err := s.Recheck(); err != nil {
				t.Error(err)
			}
			if after := hashFiles(t, filepath.Dir(path)); after != before {
				t.Errorf("files were changed:\n%s\n%s", before, after)
			}
		})
	}
}

// openNth opens a snapshot by the ID that is at its place in the table.
func openNth(t *testing.T, o *opener, path string, i int) *source {
	t.Helper()
	f, err := openFile(path, &o.reads, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := o.inspect(f)
	if err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, o, path, refOptions{SnapshotID: img.Snapshots()[i].ID})
}

// hashFiles is content, size and times of all files in dir.
func hashFiles(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(content)
		b.WriteString(e.Name() + " " + hex.EncodeToString(sum[:]) + " " + info.ModTime().String() + "\n")
	}
	return b.String()
}

// One file is one image and one state one view, by whatever name.
func TestOpenerSharesImages(t *testing.T) {
	testtool.Need(t, "qemu-img")
	t.Chdir(t.TempDir())
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "1M")
	testtool.Run(t, "qemu-img", "snapshot", "-c", "monday", "base.qcow2")
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "mid.qcow2")
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2")
	if err := os.Link("base.qcow2", "other-name"); err != nil {
		t.Fatal(err)
	}
	for _, order := range [][]string{{"top.qcow2", "base.qcow2"}, {"base.qcow2", "top.qcow2"}, {"other-name", "top.qcow2"}} {
		o := newTestOpener(t, openerOptions{})
		views := map[string]sparse.View{}
		for _, ref := range order {
			views[strings.TrimSuffix(ref, "other-name")] = mustOpen(t, o, ref, refOptions{}).View
		}
		base := views["base.qcow2"]
		if base == nil {
			base = views[""]
		}
		below := views["top.qcow2"].(*qcow2.View).Backing().(*qcow2.View).Backing()
		if below != base {
			t.Errorf("%v: the image below is %p, the one opened %p", order, below, base)
		}
	}
	o := newTestOpener(t, openerOptions{})
	a, b := mustOpen(t, o, "base.qcow2@monday", refOptions{}), mustOpen(t, o, "other-name", refOptions{SnapshotID: "1"})
	if a.View != b.View || a.Point != b.Point || a.Point == "" {
		t.Errorf("one snapshot by two names: %p %s, %p %s", a.View, a.Point, b.View, b.Point)
	}
	if active := mustOpen(t, o, "base.qcow2", refOptions{}); active.Img != a.Img {
		t.Error("the active state is of another image than the snapshot")
	}
}

func TestRecheck(t *testing.T) {
	testtool.Need(t, "qemu-img")
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		ref, change string
		fails       bool
	}{
		{"disk.raw", "write disk.raw", true},
		{"disk.raw", "truncate disk.raw", true},
		{"disk.raw", "nothing", false},
		{"disk.qcow2", "write disk.qcow2", true},
		{"disk.qcow2", "write base.raw", true},
		{"disk.qcow2", "nothing", false},
		{"disk.qcow2@monday", "write disk.qcow2", false}, // the machine goes on
		{"disk.qcow2@monday", "delete monday", true},
		{"disk.qcow2@monday", "write base.raw", true},
	} {
		t.Run(c.ref+" "+c.change, func(t *testing.T) {
			for _, old := range []string{"base.raw", "disk.raw", "disk.qcow2"} {
				os.Remove(old)
			}
			testtool.Run(t, "qemu-img", "create", "-q", "-f", "raw", "base.raw", "1M")
			testtool.Run(t, "qemu-img", "create", "-q", "-f", "raw", "disk.raw", "1M")
			testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "disk.qcow2")
			testtool.Run(t, "qemu-img", "snapshot", "-c", "monday", "disk.qcow2")
			o := newTestOpener(t, openerOptions{})
			s := mustOpen(t, o, c.ref, refOptions{})
			verb, file, _ := strings.Cut(c.change, " ")
			switch verb {
			case "write":
				overwrite(t, file)
			case "truncate":
				if err := os.Truncate(file, 4096); err != nil {
					t.Fatal(err)
				}
			case "delete":
				testtool.Run(t, "qemu-img", "snapshot", "-d", file, "disk.qcow2")
			}
			err := s.Recheck()
			if (err != nil) != c.fails {
				t.Errorf("Recheck = %v", err)
			}
			if err != nil && (&app{started: true}).exitCode(t.Context(), err) != fail.Failed {
				t.Errorf("exit code of %v is not 1", err)
			}
		})
	}
}

// overwrite writes the first bytes of a file again, with what they hold.
func overwrite(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 16)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
}

func TestHooks(t *testing.T) {
	t.Chdir(t.TempDir())
	touch(t, "disk.raw")
	o := newTestOpener(t, openerOptions{})
	o.rawPoint = func(path, own string) (string, string, error) {
		if path != "disk.raw" || !strings.HasPrefix(own, "raw:") {
			t.Errorf("rawPoint(%q, %q)", path, own)
		}
		return "", "", fail.Busy("incomplete")
	}
	if _, err := o.open(t.Context(), "disk.raw", refOptions{}); err == nil || err.Error() != "incomplete" {
		t.Errorf("refused source: %v", err)
	}
	var got []string
	o.openDelta = func(_ context.Context, path string, opt refOptions) (*source, error) {
		got = append(got, path, opt.Snapshot)
		return &source{}, nil
	}
	touch(t, "tuesday.cbt")
	mustOpen(t, o, "tuesday.cbt", refOptions{})
	mustOpen(t, o, "tuesday.cbt@disk/1", refOptions{})
	if want := "tuesday.cbt||tuesday.cbt|disk/1"; strings.Join(got, "|") != want {
		t.Errorf("openDelta got %q, want %q", got, want)
	}
}

// A write within one tick of the clock is not seen in the mtime: no point is
// taken before the tick is over.
func TestSettle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.raw")
	open := func() *source { return mustOpen(t, newTestOpener(t, openerOptions{}), path, refOptions{}) }
	if err := os.WriteFile(path, make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		overwrite(t, path)
		before := open()
		if age := time.Since(before.Instant); age < infile.FineTick {
			t.Errorf("opened %v after it was written", age)
		}
		overwrite(t, path)
		if err := before.Recheck(); err == nil {
			t.Error("a write right after the file was opened goes unnoticed")
		}
	}
	// A file system that counts in seconds, and one that does not, where somebody
	// set the mtime to a whole one.
	second := time.Now().Truncate(time.Second)
	if wait := infile.UntilTold(second.Add(time.Millisecond), second, infile.Stat{Mtime: second, Ctime: second}); wait < infile.CoarseTick/2 {
		t.Errorf("on a coarse file system: %v", wait)
	}
	if wait := infile.UntilTold(second.Add(time.Millisecond), second, infile.Stat{Mtime: second, Ctime: second.Add(1)}); wait > infile.FineTick {
		t.Errorf("on a fine file system: %v", wait)
	}
	future := time.Now().Add(time.Hour)
	if err := os.Chtimes(path, future, future); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	open()
	if d := time.Since(start); d > time.Minute {
		t.Errorf("waited %v for a time in the future", d)
	}
}
