package text

import "testing"

func TestShellQuote(t *testing.T) {
	for s, want := range map[string]string{
		"/srv/images": "/srv/images", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$x": "'$x'", "~": "'~'", "=ls": "'=ls'",
		"a\nb": `$'a\nb'`, `a\nb`: `'a\nb'`, "a\xff'": `$'a\377\047'`, "a\u202eb\\": `$'a\342\200\256b\\'`,
	} {
		if got := Quote(s); got != want {
			t.Errorf("shellQuote(%q) = %s, want %s", s, got, want)
		}
	}
}
