package cli

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestPrintable(t *testing.T) {
	for s, want := range map[string]string{
		"daily":                "daily",
		"Grüße aus Köln":       "Grüße aus Köln",
		"a@b,c=d":              "a@b,c=d",
		"":                     `""`,
		"\x1b]0;title\a":       `"\x1b]0;title\a"`,
		"a\nb":                 `"a\nb"`,
		" spaces ":             `" spaces "`,
		"\u009b2J":             `"\u009b2J"`,
		"\u202egnp.exe":        `"\u202egnp.exe"`,
		"\xff\xfe":             `"\xff\xfe"`,
		`"quoted"`:             `"\"quoted\""`,
		"no-break\u00a0space":  `"no-break\u00a0space"`,
		"soft\u00adhyphen\x7f": `"soft\u00adhyphen\x7f"`,
	} {
		if got := printable(s); got != want {
			t.Errorf("printable(%q) = %s, want %s", s, got, want)
		}
	}
}

func TestOneLine(t *testing.T) {
	for s, want := range map[string]string{
		"a: b\n":           "a: b",
		"a\r\nb":           `a\r\nb`,
		"\x1b[31mred\xff":  `\x1b[31mred\xff`,
		"real \ufffd here": "real \ufffd here",
		"\u202eab":         `\u202eab`,
	} {
		if got := oneLine(s); got != want {
			t.Errorf("oneLine(%q) = %s, want %s", s, got, want)
		}
	}
}

func TestWriteJSON(t *testing.T) {
	in := "tab\t esc\x1b del\x7f csi\u009b rtl\u202e tag\U000e0041 ok ü <&>"
	var b strings.Builder
	if err := writeJSON(&b, map[string]string{"name": in}); err != nil {
		t.Fatal(err)
	}
	for _, r := range strings.TrimSpace(b.String()) {
		if r != '\n' && unprintable(r) {
			t.Errorf("%q is in %q", r, b.String())
		}
	}
	var back map[string]string
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil || back["name"] != in {
		t.Errorf("read back as %q, %v", back["name"], err)
	}
}
