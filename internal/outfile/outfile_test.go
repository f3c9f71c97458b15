package outfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func listed(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range list {
		all = append(all, e.Name())
	}
	return all
}

// each runs a test for files without and with a temporary name.
func each(t *testing.T, test func(t *testing.T, dir string, create func(path string, replace bool) (*File, error))) {
	t.Run("unnamed", func(t *testing.T) { test(t, t.TempDir(), Create) })
	t.Run("named", func(t *testing.T) {
		test(t, t.TempDir(), func(path string, replace bool) (*File, error) {
			f := &File{path: path, replace: replace}
			return f, f.createPart()
		})
	})
}

func TestCommit(t *testing.T) {
	each(t, func(t *testing.T, dir string, create func(string, bool) (*File, error)) {
		path := filepath.Join(dir, "x")
		f, err := create(path, false)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString("whole")
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("there before Commit: %v", err)
		}
		if err := f.Commit(); err != nil {
			t.Fatal(err)
		}
		got, _ := os.ReadFile(path)
		st, err := os.Stat(path)
		if err != nil || string(got) != "whole" || st.Mode().Perm() != 0o600 {
			t.Fatalf("%q, %v, %v", got, st.Mode(), err)
		}
		if n := listed(t, dir); len(n) != 1 {
			t.Fatalf("left behind: %q", n)
		}
		if _, err := Create(path, false); !errors.Is(err, fs.ErrExist) {
			t.Fatalf("second Create: %v", err)
		}
	})
}

func TestCommitNeverReplaces(t *testing.T) {
	each(t, func(t *testing.T, dir string, create func(string, bool) (*File, error)) {
		path := filepath.Join(dir, "x")
		f, err := create(path, false)
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(path, []byte("came between"), 0o600)
		if err := f.Commit(); !errors.Is(err, fs.ErrExist) {
			t.Fatalf("Commit: %v", err)
		}
		if got, _ := os.ReadFile(path); string(got) != "came between" {
			t.Fatalf("%q", got)
		}
		if n := listed(t, dir); len(n) != 1 {
			t.Fatalf("left behind: %q", n)
		}
	})
}

func TestReplace(t *testing.T) {
	each(t, func(t *testing.T, dir string, create func(string, bool) (*File, error)) {
		path := filepath.Join(dir, "x")
		os.WriteFile(path, []byte("old"), 0o644)
		os.WriteFile(filepath.Join(dir, ".x.part"), []byte("left by a killed process, longer"), 0o644)
		f, err := create(path, true)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString("new")
		if got, _ := os.ReadFile(path); string(got) != "old" {
			t.Fatalf("before Commit: %q", got)
		}
		if err := f.Commit(); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != "new" {
			t.Fatalf("%q", got)
		}
		if n := listed(t, dir); len(n) != 1 {
			t.Fatalf("left behind: %q", n)
		}
	})
}

func TestAbort(t *testing.T) {
	each(t, func(t *testing.T, dir string, create func(string, bool) (*File, error)) {
		f, err := create(filepath.Join(dir, "x"), false)
		if err != nil {
			t.Fatal(err)
		}
		f.Abort()
		f.Abort()
		if n := listed(t, dir); len(n) != 0 {
			t.Fatalf("left behind: %q", n)
		}
	})
}

func TestNamedIsNotShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	a := &File{path: path}
	if err := a.createPart(); err != nil {
		t.Fatal(err)
	}
	defer a.Abort()
	b := &File{path: path}
	if err := b.createPart(); err == nil {
		t.Fatal("two processes write one file")
	}
}

func TestMissingDirectory(t *testing.T) {
	if _, err := Create(filepath.Join(t.TempDir(), "no", "x"), false); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestLockDir(t *testing.T) {
	dir := t.TempDir()
	lock := func(alone bool) (*os.File, error) { return LockDir(t.Context(), dir, alone, 0) }
	one, err := lock(false)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	two, err2 := lock(false)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	if _, err := lock(true); !errors.Is(err, ErrLocked) {
		t.Errorf("alone beside two: %v", err)
	}
	one.Close()
	go func() {
		time.Sleep(200 * time.Millisecond)
		two.Close()
	}()
	alone, err := LockDir(t.Context(), dir, true, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(false); !errors.Is(err, ErrLocked) {
		t.Errorf("beside one that is alone: %v", err)
	}
	alone.Close()
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Error(left, err)
	}
}

func TestCommitAs(t *testing.T) {
	dir := t.TempDir()
	for _, want := range []error{nil, fs.ErrExist} {
		f, err := CreateIn(dir, "disk", ".cbt")
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString("whole")
		if err := f.CommitAs("disk-1.cbt"); !errors.Is(err, want) {
			t.Fatalf("%v, want %v", err, want)
		}
		if n := listed(t, dir); len(n) != 1 || n[0] != "disk-1.cbt" {
			t.Fatalf("%q", n)
		}
	}
}

// TestSweep: what a killed process left goes, all else stays.
func TestSweep(t *testing.T) {
	if !canLock {
		t.Skip("files cannot be locked")
	}
	dir := t.TempDir()
	for _, name := range []string{".dead.cbt.part", ".other.raw.part", "visible.cbt.part", "whole.cbt"} {
		os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600)
	}
	alive := &File{path: filepath.Join(dir, "alive.cbt")}
	if err := alive.createPart(); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(dir, ".cbt"); err != nil {
		t.Fatal(err)
	}
	if n := listed(t, dir); !slices.Equal(n, []string{".alive.cbt.part", ".other.raw.part", "visible.cbt.part", "whole.cbt"}) {
		t.Fatalf("left: %q", n)
	}
	if err := alive.CommitAs("done.cbt"); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(filepath.Join(dir, "nowhere"), ".cbt"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestRemovePart(t *testing.T) {
	dir := t.TempDir()
	path, part := filepath.Join(dir, "x"), filepath.Join(dir, ".x.part")
	if err := RemovePart(path); err != nil {
		t.Fatal(err)
	}
	f := &File{path: path}
	if err := f.createPart(); err != nil {
		t.Fatal(err)
	}
	if err := RemovePart(path); err != nil || len(listed(t, dir)) != 1 {
		t.Fatalf("a living process's file: %v, %q", err, listed(t, dir))
	}
	f.File.Close() // as if killed
	if err := RemovePart(path); err != nil || len(listed(t, dir)) != 0 {
		t.Fatalf("%v, %q", err, listed(t, dir))
	}
	if err := os.Mkdir(part, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := RemovePart(path); err != nil || len(listed(t, dir)) != 1 {
		t.Fatalf("a directory: %v, %q", err, listed(t, dir))
	}
}
