// Package text makes text safe to show: on a terminal, in JSON, in commands for
// pasting. It also reads and writes sizes.
package text

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Everything that comes out of a file (names of snapshots, bitmaps, backing
// files) is somebody else's text. On its way to a terminal it passes through
// one of the functions here, which leave no control character, no invalid
// UTF-8 and nothing that changes the direction of text.

// Printable returns s as it is if it is harmless and one can see where it
// begins and ends, else quoted as Go quotes.
func Printable(s string) string {
	if s == "" || s[0] == '"' || strings.TrimSpace(s) != s || !utf8.ValidString(s) || strings.ContainsFunc(s, Unprintable) {
		return fmt.Sprintf("%q", s)
	}
	return s
}

// OneLine escapes what Printable would quote and keeps the rest, line breaks
// made visible too: for a message that holds names of both kinds.
func OneLine(s string) string {
	s = strings.TrimRight(s, "\n")
	if utf8.ValidString(s) && !strings.ContainsFunc(s, Unprintable) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case Unprintable(r):
			q := fmt.Sprintf("%q", r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Unprintable reports whether r does not show as itself.
func Unprintable(r rune) bool { return !unicode.IsPrint(r) }

// EscapeJSON returns JSON text with what does not show as itself as \u escapes.
func EscapeJSON(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\n' || !Unprintable(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
