package cow

import (
	"bytes"
	"errors"
	"testing"

	"cbt/sparse"
)

func TestEmptyStore(t *testing.T) {
	b := make([]byte, 64<<10)
	copy(b, "SnAp\x01\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00")
	s, err := Open(bytes.NewReader(b), int64(len(b)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.ChunkSize() != 4096 || s.Len() != 0 {
		t.Errorf("chunks of %d bytes, %d records", s.ChunkSize(), s.Len())
	}
	if err := s.Recheck(); err != nil {
		t.Error(err)
	}
	b[4] = 0
	if _, err := Open(bytes.NewReader(b), int64(len(b)), Options{}); !errors.Is(err, ErrInvalidated) {
		t.Errorf("invalidated: %v", err)
	}
	var bad *sparse.FormatError
	if err := s.Recheck(); !errors.Is(err, ErrChanged) || !errors.As(err, &bad) {
		t.Errorf("Recheck after that: %v", err)
	}
}
