package outfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestCommitTogether(t *testing.T) {
	dir := t.TempDir()
	begin := func(name string, replace bool) *File {
		f, err := Create(filepath.Join(dir, name), replace)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(name); err != nil {
			t.Fatal(err)
		}
		return f
	}
	var maps, images []*File
	for i := range 100 {
		maps = append(maps, begin(fmt.Sprint("map", i), false))
		images = append(images, begin(fmt.Sprint("image", i), i%2 == 0))
	}
	if err := CommitTogether(maps, images); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		for _, name := range []string{fmt.Sprint("map", i), fmt.Sprint("image", i)} {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != name {
				t.Errorf("%s: %q, %v", name, b, err)
			}
		}
	}
	// One of the first group has its name taken meanwhile: none of the second gets one.
	a, b, c, d := begin("a", false), begin("b", false), begin("c", false), begin("d", false)
	if err := os.WriteFile(filepath.Join(dir, "b"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CommitTogether([]*File{a, b, c}, []*File{d}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	for name, want := range map[string]bool{"a": true, "c": false, "d": false} {
		if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 202 {
		t.Errorf("%d names in the directory, %v", len(entries), err)
	}
}
