package outfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			l, err := OpenLog(path, "{x")
			if err != nil {
				t.Error(err)
				return
			}
			for j := range 50 {
				if err := l.Append(fmt.Appendf(nil, "{x %d %d %s}", i, j, strings.Repeat("y", 9000))); err != nil {
					t.Error(err)
				}
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	text, _ := os.ReadFile(path)
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) != 200 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, l := range lines {
		if !strings.HasPrefix(l, "{x ") || !strings.HasSuffix(l, "y}") || len(l) < 9000 {
			t.Fatalf("%.40q", l)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatal(st.Mode(), err)
	}
}

func TestLogIsClosedWhereItWasCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	os.WriteFile(path, []byte("{x cut"), 0o600)
	l, err := OpenLog(path, "{x")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Append([]byte("{x}")); err != nil {
		t.Fatal(err)
	}
	if err := l.Append([]byte("{x\n}")); err == nil {
		t.Error("a line break in a line")
	}
	if text, _ := os.ReadFile(path); string(text) != "{x cut\n{x}\n" {
		t.Errorf("%q", text)
	}
}

func TestLogLeavesOtherFilesAlone(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"{", "a disk", "{y", "\n{x"} {
		path := filepath.Join(dir, "file")
		os.WriteFile(path, []byte(text), 0o600)
		if _, err := OpenLog(path, "{x"); !errors.Is(err, ErrNotLog) {
			t.Errorf("%q: %v", text, err)
		}
		if got, _ := os.ReadFile(path); string(got) != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	if _, err := OpenLog(dir, "{x"); err == nil {
		t.Error("a directory")
	}
	if _, err := OpenLog(os.DevNull, "{x"); !errors.Is(err, ErrNotLog) {
		t.Error(err)
	}
}
