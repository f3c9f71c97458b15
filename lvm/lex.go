package lvm

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"cbt/sparse"
)

// Pos is a place in a text. Lines and columns count from 1, columns in bytes.
type Pos struct {
	Line, Column int32
}

func (p Pos) String() string { return fmt.Sprintf("line %d, column %d", p.Line, p.Column) }

// textError returns the error about what is at p.
func textError(p Pos, value any, format string, args ...any) error {
	return &sparse.FormatError{Struct: "LVM text, " + p.String(), Off: -1, Value: value, Msg: fmt.Sprintf(format, args...)}
}

// lexer reads a text. Comments and white space only separate.
type lexer struct {
	src  []byte
	at   int
	line int32
	bol  int // offset of the first byte of the line
}

func (x *lexer) pos() Pos { return Pos{x.line, int32(x.at-x.bol) + 1} }

// peek skips white space and comments and returns the next byte. It returns 0 at the end, which is
// the end of the text or a NUL.
func (x *lexer) peek() byte {
	for x.at < len(x.src) {
		switch c := x.src[x.at]; c {
		case '\n':
			x.at++
			x.line, x.bol = x.line+1, x.at
		case ' ', '\t', '\r', '\v', '\f':
			x.at++
		case '#':
			if n := bytes.IndexByte(x.src[x.at:], '\n'); n >= 0 {
				x.at += n
			} else {
				x.at = len(x.src)
			}
		default:
			return c
		}
	}
	return 0
}

// take skips white space, and then c if that comes next. It reports whether it did.
func (x *lexer) take(c byte) bool {
	if x.peek() != c || c == 0 {
		return false
	}
	x.at++
	return true
}

// key reads an identifier or a quoted string.
func (x *lexer) key() (string, error) {
	c, at := x.peek(), x.pos()
	var key string
	if c == '"' || c == '\'' {
		s, err := x.quoted(c)
		if err != nil {
			return "", err
		}
		key = s
	} else {
		key = x.word()
	}
	if key == "" || strings.ContainsAny(key, "/\x00") {
		return "", textError(at, key, "not a key")
	}
	return key, nil
}

// word reads up to white space, #, =, { or }.
func (x *lexer) word() string {
	start := x.at
	for x.at < len(x.src) && !strings.ContainsRune(" \t\r\n\v\f#={}\x00", rune(x.src[x.at])) {
		x.at++
	}
	return string(x.src[start:x.at])
}

// quoted reads a string in quotes. In double quotes, \" and \\ are the only escapes; other
// backslashes stand for themselves. Line breaks are allowed.
func (x *lexer) quoted(quote byte) (string, error) {
	at := x.pos()
	x.at++
	var out []byte
	for x.at < len(x.src) {
		c := x.src[x.at]
		x.at++
		switch {
		case c == quote:
			return string(out), nil
		case c == 0:
			return "", textError(at, nil, "a string that does not end")
		case c == '\\' && quote == '"' && x.at < len(x.src) && (x.src[x.at] == '"' || x.src[x.at] == '\\'):
			c = x.src[x.at]
			x.at++
		case c == '\n':
			x.line, x.bol = x.line+1, x.at
		}
		out = append(out, c)
	}
	return "", textError(at, nil, "a string that does not end")
}

// number reads an integer, which is octal if it starts with 0, or a float.
func (x *lexer) number() (Value, error) {
	at, start := x.pos(), x.at
	if c := x.src[x.at]; c == '+' || c == '-' {
		x.at++
	}
	float := false
	for x.at < len(x.src) && (x.src[x.at] >= '0' && x.src[x.at] <= '9' || x.src[x.at] == '.') {
		float = float || x.src[x.at] == '.'
		x.at++
	}
	s := string(x.src[start:x.at])
	if x.at < len(x.src) && !strings.ContainsRune(" \t\r\n\v\f#,]}\x00", rune(x.src[x.at])) {
		return Value{}, textError(at, s+string(x.src[x.at]), "not a number")
	}
	if float {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return Value{}, textError(at, s, "not a number")
		}
		return Value{Kind: Float, Float: f, Pos: at}, nil
	}
	base := 10
	if digits := strings.TrimLeft(s, "+-"); len(digits) > 1 && digits[0] == '0' {
		base = 8
	}
	i, err := strconv.ParseInt(s, base, 64)
	if err != nil {
		return Value{}, textError(at, s, "not a 64-bit integer")
	}
	return Value{Kind: Int, Int: i, Pos: at}, nil
}
