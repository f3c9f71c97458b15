package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// At a terminal a bar comes after a second, says what runs, and has no rate: bytes are those of the image, most
// of which are passed over.
func TestProgressBar(t *testing.T) {
	var out bytes.Buffer
	a := &app{Env: Env{Stderr: &out, StderrTerminal: true}}
	p := a.Start("backup", 10<<30).(*progress)
	for i := range int64(1000) {
		p.Set(i << 20)
	}
	if out.Len() > 0 {
		t.Fatalf("at once: %q", out.String())
	}
	p.next = time.Time{}
	p.Set(5 << 30)
	p.Finish()
	if got := out.String(); !strings.Contains(got, "backup: 5 GiB of 10 GiB  50%") || strings.Contains(got, "/s") {
		t.Fatalf("later: %q", got)
	}
}
