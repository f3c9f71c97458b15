package text

import "testing"

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
		if got := Printable(s); got != want {
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
		if got := OneLine(s); got != want {
			t.Errorf("oneLine(%q) = %s, want %s", s, got, want)
		}
	}
}
