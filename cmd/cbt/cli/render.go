package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Everything that comes out of a file (names of snapshots, bitmaps, backing
// files) is somebody else's text. On its way to a terminal it passes through
// one of the functions here, which leave no control character, no invalid
// UTF-8 and nothing that changes the direction of text.

// printable returns s as it is if it is harmless and one can see where it
// begins and ends, else quoted as Go quotes.
func printable(s string) string {
	if s == "" || s[0] == '"' || strings.TrimSpace(s) != s || !utf8.ValidString(s) || strings.ContainsFunc(s, unprintable) {
		return fmt.Sprintf("%q", s)
	}
	return s
}

// oneLine escapes what printable would quote and keeps the rest, line breaks
// made visible too: for a message that holds names of both kinds.
func oneLine(s string) string {
	s = strings.TrimRight(s, "\n")
	if utf8.ValidString(s) && !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unprintable(r):
			q := fmt.Sprintf("%q", r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// writeJSON prints v indented. encoding/json leaves some control characters
// as they are; JSON has them only inside strings, so they can be escaped in
// its output.
func writeJSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "    ")
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, escapeJSON(string(text))+"\n")
	return err
}

func escapeJSON(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\n' || !unprintable(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
