package tree

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxName is the longest name of a file, in bytes.
const MaxName = 255

// apart stands between a name that is not enough and what tells it from others.
// Escape never writes it.
const apart = "%~"

// Escape makes a file name of any string, the same for no two: bytes that a
// name cannot hold, that do not print, or are no UTF-8, and the percent sign
// become %XX. "." and ".." are %2E and %2E%2E, the empty string is a percent
// sign alone. The result may be longer than MaxName.
func Escape(s string) string {
	switch s {
	case "":
		return "%"
	case ".", "..":
		return strings.Repeat("%2E", len(s))
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || r == '/' || r == '%' || !unicode.IsPrint(r) {
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// Unescape undoes Escape; ok is false for what Escape does not write.
func Unescape(name string) (s string, ok bool) {
	if name == "%" {
		return "", true
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '%' {
			b.WriteByte(name[i])
			continue
		}
		if i+3 > len(name) {
			return "", false
		}
		c, err := strconv.ParseUint(name[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(c))
		i += 2
	}
	s = b.String()
	return s, Escape(s) == name
}

// Named is something that needs a file name: what it is called, and what else
// tells it from others of that name.
type Named struct{ Name, ID string }

// Names makes distinct file names, each followed by suffix. A name that is
// alone and fits is escaped and no more; else it is cut as far as need be and
// "%~" and the escaped ID follow, and if even that is not enough, "%~" and a
// number. Where the same things come in the same order, the names are the same.
func Names(list []Named, suffix string) []string {
	n := namer{room: MaxName - len(suffix), taken: map[string]bool{}, next: map[string]int{}}
	return n.names(list, suffix)
}

// namer finds names that are not taken. Its work grows with the number of
// names, however many of them are equal or become so by being cut.
type namer struct {
	room  int // bytes of a name without its suffix
	taken map[string]bool
	next  map[string]int // the number that is free behind what stands before it
	tries int
}

func (n *namer) names(list []Named, suffix string) []string {
	count := map[string]int{}
	names := make([]string, len(list))
	for i, l := range list {
		names[i] = Escape(l.Name)
		count[names[i]]++
	}
	for i, name := range names {
		if count[name] == 1 && len(name) <= n.room {
			n.taken[name] = true
		} else {
			names[i] = ""
		}
	}
	for i, l := range list {
		if names[i] == "" {
			names[i] = n.free(Escape(l.Name), cut(Escape(l.ID), MaxName/3))
		}
	}
	for i := range names {
		names[i] += suffix
	}
	return names
}

// free takes a name with the ID behind it, and a number from 2 on if that is
// taken. Numbers with as many digits stand behind the same text, and no other
// name is like these, so that the next one is free.
func (n *namer) free(name, id string) string {
	tail := apart + id
	n.tries++
	if try := cut(name, n.room-len(tail)) + tail; !n.taken[try] {
		n.taken[try] = true
		return try
	}
	tail += apart
	for digits, first := 1, 2; ; digits++ {
		n.tries++
		stem := cut(name, n.room-len(tail)-digits) + tail
		k := max(n.next[stem], first)
		if len(strconv.Itoa(k)) > digits {
			first = k // all of these are taken, and k is the first with a digit more
			continue
		}
		n.next[stem] = k + 1
		try := stem + strconv.Itoa(k)
		n.taken[try] = true
		return try
	}
}

// cut cuts an escaped name to at most n bytes, not inside an escape or a
// character.
func cut(name string, n int) string {
	if len(name) <= n {
		return name
	}
	for n > 0 && !utf8.RuneStart(name[n]) {
		n--
	}
	for back := 1; back <= 2 && back <= n; back++ {
		if name[n-back] == '%' {
			return name[:n-back]
		}
	}
	return name[:n]
}
