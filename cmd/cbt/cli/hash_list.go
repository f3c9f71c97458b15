package cli

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cbt/internal/infile"
)

// Lists of hashes have the forms of GNU coreutils, which its programs check:
// "HASH  NAME" of one algorithm, "SHA256 (NAME) = HASH" of several. A name
// that holds a backslash, a line feed or a carriage return is escaped, and its
// line begins with a backslash. A part of an image is called
// "NAME offset FIRST-LAST", as md5deep calls it.

// hashLine is a line of such a list.
type hashLine struct {
	algo algorithm
	sum  string // lower case hexadecimal
	name string
}

// print returns the line without its end; tagged is the form for several
// algorithms.
func (l hashLine) print(tagged bool) string {
	name, mark := l.name, ""
	if strings.ContainsAny(name, "\\\n\r") {
		name, mark = strings.NewReplacer("\\", `\\`, "\n", `\n`, "\r", `\r`).Replace(name), `\`
	}
	if tagged {
		return fmt.Sprintf("%s%s (%s) = %s", mark, l.algo.tag, name, l.sum)
	}
	return fmt.Sprintf("%s%s  %s", mark, l.sum, name)
}

var (
	plainLine  = regexp.MustCompile(`^(\\?)([0-9a-fA-F]{32,128}) [ *](.+)$`)
	taggedLine = regexp.MustCompile(`^(\\?)([A-Z0-9]+) \((.+)\) = ([0-9a-fA-F]{32,128})$`)
	partName   = regexp.MustCompile(`(?s)^(.+) offset ([0-9]{1,19})-([0-9]{1,19})$`)
)

// parseHashLine reads a line of either form.
func parseHashLine(line string) (l hashLine, ok bool) {
	i, escaped := -1, ""
	if m := taggedLine.FindStringSubmatch(line); m != nil {
		escaped, l.name, l.sum = m[1], m[3], m[4]
		i = slices.IndexFunc(algorithms, func(a algorithm) bool { return a.tag == m[2] })
	} else if m := plainLine.FindStringSubmatch(line); m != nil {
		escaped, l.sum, l.name = m[1], m[2], m[3]
		i = slices.IndexFunc(algorithms, func(a algorithm) bool { return hex.EncodedLen(a.size) == len(l.sum) })
	}
	if i < 0 || len(l.sum) != hex.EncodedLen(algorithms[i].size) {
		return l, false
	}
	l.algo, l.sum = algorithms[i], strings.ToLower(l.sum)
	if escaped == "" {
		return l, true
	}
	l.name, ok = unescapeName(l.name)
	return l, ok
}

func unescapeName(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		j := -1
		if i < len(s) {
			j = strings.IndexByte(`\nr`, s[i])
		}
		if j < 0 {
			return "", false
		}
		b.WriteByte("\\\n\r"[j])
	}
	return b.String(), true
}

// nameOfPart is what the bytes [off, off+n) of an image are called.
func nameOfPart(name string, off, n int64) string {
	return fmt.Sprintf("%s offset %d-%d", name, off, off+n-1)
}

// splitPart undoes nameOfPart; all of an image has no part in its name.
func splitPart(name string) (ref string, off, n int64, part bool) {
	m := partName.FindStringSubmatch(name)
	if m == nil || infile.Exists(name) {
		return name, 0, 0, false
	}
	first, err1 := strconv.ParseInt(m[2], 10, 64)
	last, err2 := strconv.ParseInt(m[3], 10, 64)
	if err1 != nil || err2 != nil || last < first || last-first == 1<<63-1 {
		return name, 0, 0, false
	}
	return m[1], first, last - first + 1, true
}
