package machines

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// parse reads "DAY IMAGE MACHINE SOURCE FROM TO", - for what is not known.
func parse(t *testing.T, text string) Delta {
	t.Helper()
	f := strings.Fields(text)
	if len(f) != 6 {
		t.Fatal(text)
	}
	for i := range f {
		if f[i] == "-" {
			f[i] = ""
		}
	}
	d := Delta{Image: f[1], Machine: f[2], Streams: []Stream{{Name: "disk/0", Source: f[3], From: f[4], To: f[5]}}}
	if f[0] != "" {
		var day int
		if _, err := fmt.Sscan(f[0], &day); err != nil {
			t.Fatal(err)
		}
		d.Time = time.Date(2026, 11, day, 2, 30, 0, 0, time.UTC)
	}
	return d
}

func TestGroup(t *testing.T) {
	for _, test := range []struct {
		name     string
		deltas   []string
		of, line string
	}{
		{"two machines whose images have one name",
			[]string{"1 disk file:a file:a - a1", "1 disk file:b file:b - b1", "2 disk file:a file:a a1 a2", "2 disk file:b file:b b1 b2"}, "0101", "0101"},
		{"one machine with two full deltas", []string{"1 vm1 vm1 file:a - a1", "2 vm1 vm1 file:a - a2"}, "00", "00"},
		{"two overlays over one backing file that was backed up too",
			[]string{"1 base base file:x - x1", "2 vm1 vm1 file:a x1 a1", "2 vm2 vm2 file:b x1 b1"}, "012", "012"},
		{"a name that is given later", []string{"1 disk file:a file:a - a1", "2 vm1 vm1 file:a a1 a2"}, "00", "00"},
		{"two names that are given later", []string{"1 disk file:a file:a - a1", "2 vm1 vm1 file:a a1 a2", "3 vm2 vm2 file:a a2 a3"}, "012", "012"},
		{"a restored machine", []string{"1 vm1 vm1 file:a - a1", "2 vm1 vm1 file:a a1 a2", "3 vm1 vm1 file:b a2 b3", "4 vm1 vm1 file:b b3 b4"}, "0000", "0000"},
		{"a disk once under another's name", []string{"1 vm1 vm1 file:a - a1", "1 vm2 vm2 file:b - b1", "2 vm1 vm1 file:b b1 b2", "3 vm2 vm2 file:b b2 b3"}, "0101", "0121"},
		{"two disks in turns under one name", []string{"1 vm1 vm1 file:a - a1", "1 vm1 vm1 file:b - b1", "2 vm1 vm1 file:a a1 a2", "2 vm1 vm1 file:b b1 b2"}, "0000", "0101"},
		{"older deltas alone, two at one time", []string{"1 vm - - - a1", "1 vm - - - b1", "2 vm - - a1 a2", "2 vm - - b1 b2"}, "0101", "0101"},
		{"older deltas alone, one after the other", []string{"1 vm - - - a1", "2 vm - - a1 a2", "3 vm - - - a3"}, "000", "000"},
		{"older deltas without a name", []string{"1 - - - - a1", "2 - - - - a2", "3 - - - a1 a3"}, "010", "010"},
		{"older deltas that a machine goes on from", []string{"1 disk - - - a1", "2 disk - - a1 a2", "3 disk file:a file:a a2 a3"}, "000", "000"},
		{"... and two", []string{"1 disk - - - a1", "2 disk - - a1 a2", "3 disk file:a file:a a1 a3", "3 disk file:b file:b a2 b3"}, "0012", "0012"},
		{"older deltas of the name", []string{"1 vm1 - - - a1", "2 vm1 vm1 file:a - a2", "2 vm2 vm2 file:b - b2"}, "001", "001"},
		{"older deltas of the name, but at the same time", []string{"1 vm1 - - - a1", "3 vm1 - - a1 a3", "2 vm1 vm1 file:b - b2"}, "001", "001"},
		{"older deltas that another machine goes on from, and one of their name",
			[]string{"1 disk - - - a1", "2 disk - - a1 a2", "3 web web file:a a2 a3", "4 disk disk file:b a3 b4"}, "0001", "0001"},
		{"... and one of no name", []string{"1 disk - - - a1", "2 disk file:a file:a a1 a2", "3 disk disk file:b - b3"}, "001", "001"},
		{"older chains of one name that two machines go on from",
			[]string{"1 disk - - - a1", "2 disk - - - b2", "3 x x file:a a1 a3", "4 y y file:b b2 b4"}, "0101", "0101"},
		{"an older chain before that of a machine", []string{"1 disk - - - a1", "2 disk - - - a2", "3 x x file:a a2 a3"}, "000", "000"},
		{"a delta without a machine after that of one", []string{"1 vm1 - - - a1", "2 vm1 vm1 file:a - a2", "3 vm1 - - - a3"}, "001", "001"},
		{"older ones of two names, with a machine of each",
			[]string{"1 disk - - - a1", "2 web - - a1 a2", "3 disk disk file:a - a3", "4 web web file:b - b4"}, "0001", "0001"},
		{"unreadable ones", []string{"- vm1 - - - -", "1 vm1 vm1 file:a - a1"}, "01", "01"},
	} {
		var list []Delta
		for _, text := range test.deltas {
			list = append(list, parse(t, text))
		}
		d := Group(list)
		show := func(numbers []int) string {
			return strings.NewReplacer(" ", "", "[", "", "]", "").Replace(fmt.Sprint(numbers))
		}
		if of, line := show(d.Of), show(d.Line); of != test.of || line != test.line {
			t.Errorf("%s: machines %s, lines %s; want %s, %s", test.name, of, line, test.of, test.line)
		}
	}
}

// What an interrupted prune looked at together stays so.
func TestGroupTogether(t *testing.T) {
	a, b := parse(t, "1 - - - - a"), parse(t, "1 - - - - b")
	a.Together, b.Together = 3, 3
	if of := Group([]Delta{a, b}).Of; of[0] != of[1] {
		t.Error(of)
	}
}

func TestShort(t *testing.T) {
	for name, want := range map[string]string{"vm1": "vm1", "file:0123456789abcdef": "file:0123456789ab", "lvm:1": "lvm:1", "": ""} {
		if got := Short(name); got != want || Named(name) != (name == "vm1") {
			t.Errorf("%q: %q, named %v", name, got, Named(name))
		}
	}
}
