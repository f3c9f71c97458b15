package qcow2

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"cbt/sparse"
)

// openFiles opens an image and the files that it names, relative to its directory.
func openFiles(t testing.TB, path string) (*Image, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	inDir := func(name string) string {
		if filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(filepath.Dir(path), name)
	}
	return Open(f, st.Size(), Options{
		Backing: func(name, format string) (sparse.View, error) {
			switch format {
			case "qcow2":
				img, err := openFiles(t, inDir(name))
				if err != nil {
					return nil, err
				}
				return img.Active(), nil
			case "raw":
				return openRaw(t, inDir(name)), nil
			}
			return nil, fmt.Errorf("format %q", format)
		},
		Data: func(name string) (io.ReaderAt, int64, error) {
			raw := openRaw(t, inDir(name))
			return raw, raw.Size(), nil
		},
	})
}

func openRaw(t testing.TB, path string) *sparse.Raw {
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
	return raw
}

// mustOpen is openFiles for an image that must be sound.
func mustOpen(t testing.TB, path string) *Image {
	t.Helper()
	img, err := openFiles(t, path)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func mustSnapshot(t testing.TB, img *Image, i int) *View {
	t.Helper()
	v, err := img.Snapshot(i)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// mustRead returns the whole content of a view.
func mustRead(t testing.TB, v sparse.View) []byte {
	t.Helper()
	p := make([]byte, v.Size())
	if _, err := sparse.ReadFull(v, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}
