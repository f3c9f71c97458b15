package vmstate

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"cbt/internal/sample"
)

// unpacked returns a file of testdata/vmstate, unpacked.
func unpacked(t testing.TB, name string) []byte {
	t.Helper()
	return sample.Read(t, "vmstate/"+name)
}

// file returns a file of testdata/vmstate as it is.
func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(sample.Dir(t), "vmstate", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// temp returns a function that creates temporary files for tests.
func temp(t testing.TB) func() (TempFile, error) {
	dir := t.TempDir()
	return func() (TempFile, error) { return os.CreateTemp(dir, "") }
}

// open opens a state that must be valid.
func open(t testing.TB, b []byte, opt Options) *State {
	t.Helper()
	if opt.Temp == nil {
		opt.Temp = temp(t)
	}
	s, err := Open(bytes.NewReader(b), int64(len(b)), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func content(t testing.TB, b *Block) []byte {
	t.Helper()
	p := make([]byte, b.Size())
	if _, err := b.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func stream(t testing.TB, s *State) []byte {
	t.Helper()
	var w bytes.Buffer
	if err := s.WriteStream(&w, nil); err != nil {
		t.Fatal(err)
	}
	return w.Bytes()
}
