package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
)

// A write that is given up because the run ends may still be under way, while its caller uses the buffer again.
func TestWriteThatIsGivenUp(t *testing.T) {
	ended := errors.New("ended")
	ctx, cancel := context.WithCancelCause(t.Context())
	r, w := io.Pipe()
	s := &stickyWriter{ctx: ctx, w: w}
	buf := []byte("what was said")
	go cancel(ended)
	if _, err := s.Write(buf); !errors.Is(err, ended) {
		t.Fatal(err)
	}
	copy(buf, "another thing")
	got := make([]byte, len(buf))
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, []byte("what was said")) {
		t.Errorf("%q, %v: the buffer was used again", got, err)
	}
	if _, err := s.Write(buf); !errors.Is(err, ended) {
		t.Errorf("a further write: %v", err)
	}
}
