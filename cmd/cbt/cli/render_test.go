package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"cbt/internal/text"
)

func TestWriteJSON(t *testing.T) {
	in := "tab\t esc\x1b del\x7f csi\u009b rtl\u202e tag\U000e0041 ok ü <&>"
	var b strings.Builder
	if err := writeJSON(&b, map[string]string{"name": in}); err != nil {
		t.Fatal(err)
	}
	for _, r := range strings.TrimSpace(b.String()) {
		if r != '\n' && text.Unprintable(r) {
			t.Errorf("%q is in %q", r, b.String())
		}
	}
	var back map[string]string
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil || back["name"] != in {
		t.Errorf("read back as %q, %v", back["name"], err)
	}
}
