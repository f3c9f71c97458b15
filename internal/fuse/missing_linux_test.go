package fuse

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestMissing(t *testing.T) {
	there := filepath.Join(t.TempDir(), "fuse")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	found := func() (string, error) { return "/bin/fusermount3", nil }
	none := func() (string, error) { return "", os.ErrNotExist }
	for _, test := range []struct {
		device  string
		root    bool
		program func() (string, error)
		want    error
	}{
		{there, true, none, nil},
		{there, false, found, nil},
		{there, false, none, ErrNoProgram},
		{there + "-not", true, found, ErrNoDevice},
		{there + "-not", false, found, ErrNoDevice},
		{t.TempDir(), true, found, ErrNoDevice}, // cannot be opened for writing
	} {
		if err := missing(test.device, test.root, test.program); !errors.Is(err, test.want) || test.want == nil && err != nil {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// What go-fuse says when fusermount3 fails.
func TestRefused(t *testing.T) {
	if err := mountError("/mnt", errors.New("fusermount exited with code 256\n")); !errors.Is(err, ErrRefused) || err.Error() != "/mnt: fusermount3 refused" {
		t.Errorf("%v", err)
	}
	if err := mountError("/mnt", os.ErrPermission); errors.Is(err, ErrRefused) || !errors.Is(err, os.ErrPermission) {
		t.Errorf("%v", err)
	}
}
