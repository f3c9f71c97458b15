package main

import (
	"strings"
	"testing"
)

func TestUnnamed(t *testing.T) {
	for _, c := range []struct {
		old, to string
		es      []extent
		wrong   string
	}{
		{"abcd", "abcd", nil, ""},
		{"abcd", "abxd", []extent{{Start: 2, Length: 1}}, ""},
		{"abcd", "abxd", nil, "byte 2 differs"},
		{"abcd", "abxy", []extent{{Start: 2, Length: 1}}, "byte 3 differs"},
		{"abcd", "xbcy", []extent{{Start: 3, Length: 1}, {Start: 0, Length: 1}}, "byte 0 differs"},
		{"abcd", "ab\x00d", []extent{{Start: 2, Length: 1, Zero: true}}, ""},
		{"abcd", "abxd", []extent{{Start: 2, Length: 1, Zero: true}}, "byte 2 is 0x78"},
		{"abcd", "ab", nil, ""},
		{"abcd", "ab", []extent{{Start: 1, Length: 3}}, "of 2 bytes"},
		{"ab", "ab\x00\x00", nil, "grown from 2"},
		{"ab", "ab\x00\x00", []extent{{Start: 2, Length: 2, Zero: true}}, ""},
	} {
		err := unnamed(c.es, []byte(c.old), []byte(c.to))
		if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%q to %q by %v: %v, want %q", c.old, c.to, c.es, err, c.wrong)
		}
	}
}

func TestDifference(t *testing.T) {
	long := strings.Repeat("x", 1024)
	for _, c := range []struct{ got, want, says string }{
		{"abc", "ab", "3 bytes, want 2"},
		{long + "a", long + "b", "sector at 1024"},
		{"a" + long, "b" + long, "1 sectors differ"},
	} {
		if s := difference([]byte(c.got), []byte(c.want)); !strings.Contains(s, c.says) {
			t.Errorf("%.4q... and %.4q...: %q, want %q", c.got, c.want, s, c.says)
		}
	}
}

func TestCovered(t *testing.T) {
	for _, c := range []struct {
		content string
		es      []extent
		wrong   string
	}{
		{"ab\x00\x00", []extent{{Start: 0, Length: 2}, {Start: 2, Length: 2, Zero: true}}, ""},
		{"", nil, ""},
		{"abcd", []extent{{Start: 0, Length: 2}}, "up to 2"},
		{"abcd", []extent{{Start: 0, Length: 2}, {Start: 3, Length: 1}}, "after 2"},
		{"abcd", []extent{{Start: 0, Length: 5}}, "after 0"},
		{"abcd", []extent{{Start: 0, Length: 4, Zero: true}}, "other bytes"},
	} {
		err := covered(c.es, []byte(c.content))
		if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%q by %v: %v, want %q", c.content, c.es, err, c.wrong)
		}
	}
}
