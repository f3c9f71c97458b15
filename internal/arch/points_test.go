package arch

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"testing"
)

// The examples of docs/points.md, encoded by what the page says and by nothing of
// the program, give the points that the program's golden test has.
func TestPointsPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/points.md")
	if err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile("../../cmd/cbt/cli/point_frozen_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```point ")[1:]
	if len(blocks) < 6 {
		t.Errorf("%d examples", len(blocks))
	}
	for _, block := range blocks {
		block, _, _ = strings.Cut(block, "```")
		want, values, _ := strings.Cut(block, "\n")
		var b []byte
		for line := range strings.Lines(values) {
			b = appendValue(t, b, strings.TrimSuffix(line, "\n"))
		}
		sum := sha256.Sum256(b)
		if got := hex.EncodeToString(sum[:]); !strings.HasSuffix(want, got) {
			t.Errorf("%s: its values give %s", want, got)
		}
		if !strings.Contains(string(golden), `"`+want+`"`) {
			t.Errorf("%s: not in the golden test", want)
		}
	}
}

// appendValue encodes a line of an example: a kind and its value.
func appendValue(t *testing.T, b []byte, line string) []byte {
	kind, value, _ := strings.Cut(line, " ")
	integer := func(s string) uint64 {
		if n, err := strconv.ParseUint(s, 0, 64); err == nil {
			return n
		}
		n, err := strconv.ParseInt(s, 0, 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return uint64(n)
	}
	switch kind {
	case "string":
		return append(binary.BigEndian.AppendUint64(b, uint64(len(value))), value...)
	case "u32":
		return binary.BigEndian.AppendUint32(b, uint32(integer(value)))
	case "u64":
		return binary.BigEndian.AppendUint64(b, integer(value))
	case "time":
		seconds, nanoseconds, _ := strings.Cut(value, " ")
		b = binary.BigEndian.AppendUint64(b, integer(seconds))
		return binary.BigEndian.AppendUint32(b, uint32(integer(nanoseconds)))
	}
	t.Fatalf("%s: no kind of value", line)
	return nil
}
