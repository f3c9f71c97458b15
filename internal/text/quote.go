package text

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Names, paths and IDs in commands that a user may paste. A word must reach the
// command byte for byte: a name that is shown escaped could be another one's
// name as it stands.

// Quote quotes s for a line that somebody may paste into bash, zsh or ksh.
// The result is one line of printable text, so OneLine leaves it as it is.
func Quote(s string) string {
	if isPlainWord(s) {
		return s
	}
	if utf8.ValidString(s) && !strings.ContainsFunc(s, Unprintable) {
		return singleQuoted(s)
	}
	var b strings.Builder
	b.WriteString("$'")
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\\':
			b.WriteString(`\\`)
		case r == utf8.RuneError && n == 1, Unprintable(r), r == '\'', r == '!': // a ! is history's at a prompt
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, `\%03o`, c)
			}
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	b.WriteByte('\'')
	return b.String()
}

// ScriptQuote quotes s for commands that go on in JSON and from there to any
// POSIX shell: dash does not know what Quote writes for control
// characters. JSON keeps line breaks, but not what is no UTF-8.
func ScriptQuote(s string) string {
	switch {
	case isPlainWord(s):
		return s
	case utf8.ValidString(s):
		return singleQuoted(s)
	}
	// A substitution loses the line breaks at its end.
	text := strings.TrimRight(s, "\n")
	var b strings.Builder
	b.WriteString(`"$(printf '`)
	for _, c := range []byte(text) {
		fmt.Fprintf(&b, `\%03o`, c)
	}
	b.WriteString(`')"`)
	if end := s[len(text):]; end != "" {
		b.WriteString(singleQuoted(end))
	}
	return b.String()
}

// CommandLine joins words, each quoted, to a command.
func CommandLine(quote func(string) string, words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}

// PathArgument keeps a path from being taken for a flag, where it stands alone.
func PathArgument(path string) string {
	if strings.HasPrefix(path, "-") {
		return "./" + path
	}
	return path
}

// isPlainWord says whether every shell takes s as it is.
func isPlainWord(s string) bool {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+,:@%=", r)
	}
	return s != "" && s[0] != '=' && strings.TrimLeftFunc(s, plain) == "" // zsh takes =ls for the path of ls
}

func singleQuoted(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
