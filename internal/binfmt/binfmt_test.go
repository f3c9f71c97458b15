package binfmt

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"cbt/sparse"
)

func TestInside(t *testing.T) {
	for _, c := range []struct {
		off, n uint64
		size   int64
		want   bool
	}{
		{0, 0, 0, true},
		{0, 1, 0, false},
		{10, 0, 10, true},
		{11, 0, 10, false},
		{4, 6, 10, true},
		{4, 7, 10, false},
		{math.MaxUint64, 1, math.MaxInt64, false},
		{1, math.MaxUint64, math.MaxInt64, false},
		{math.MaxInt64, 0, math.MaxInt64, true},
		{0, 0, -1, false},
	} {
		if got := Inside(c.off, c.n, c.size); got != c.want {
			t.Errorf("Inside(%d, %d, %d) = %v", c.off, c.n, c.size, got)
		}
	}
}

func TestRead(t *testing.T) {
	r := strings.NewReader("0123456789")
	got, err := Read(r, 10, "table", 3, 4, 4)
	if err != nil || !bytes.Equal(got, []byte("3456")) {
		t.Fatalf("%q, %v", got, err)
	}
	for _, c := range []struct {
		off, n, limit uint64
		want          string
	}{
		{3, 5, 4, "table at 0x3: 5 bytes are more than the limit of 4"},
		{8, 3, 4, "table at 0x8: 3 bytes at 0x8 are not inside the file of 10 bytes"},
		{1 << 63, 1, 4, "table: 1 bytes at 0x8000000000000000 are not inside the file of 10 bytes"},
		{0, math.MaxUint64, math.MaxUint64, "table at 0x0: 18446744073709551615 bytes at 0x0 are not inside the file of 10 bytes"},
	} {
		_, err := Read(r, 10, "table", c.off, c.n, c.limit)
		var fe *sparse.FormatError
		if !errors.As(err, &fe) || err.Error() != c.want {
			t.Errorf("Read(%d, %d, %d): %v", c.off, c.n, c.limit, err)
		}
	}
}

func TestReadOfAShrunkenFile(t *testing.T) {
	_, err := Read(strings.NewReader("01234"), 10, "table", 3, 4, 4)
	var fe *sparse.FormatError
	if !errors.As(err, &fe) || !strings.Contains(err.Error(), "became shorter") {
		t.Fatal(err)
	}
}

type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, io.ErrClosedPipe }

func TestReadErrorIsNoFormatError(t *testing.T) {
	_, err := Read(failing{}, 10, "table", 3, 4, 4)
	var fe *sparse.FormatError
	if !errors.Is(err, io.ErrClosedPipe) || errors.As(err, &fe) {
		t.Fatal(err)
	}
}
