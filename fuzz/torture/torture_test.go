package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/testtool"
)

// TestHistories is the short round of what the program does at length.
func TestHistories(t *testing.T) {
	testtool.Need(t, "qemu-img")
	testtool.Need(t, "qemu-io")
	testtool.Need(t, "go")
	dir, err := os.MkdirTemp("", "cbt-torture-test-") // stays when a history fails
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	total, err := config{n: 40, seed: 1, jobs: 2, dir: dir}.run()
	if err != nil {
		t.Fatal(err)
	}
	if total.differences != 0 || total.histories != 40 || total.comparisons < 1000 {
		t.Errorf("%d histories, %d comparisons, %d differences; failing ones are in %s",
			total.histories, total.comparisons, total.differences, dir)
	}
}

// TestDeterminedBySeed makes a history twice.
func TestDeterminedBySeed(t *testing.T) {
	testtool.Need(t, "qemu-img")
	testtool.Need(t, "qemu-io")
	dir := t.TempDir()
	pat, err := writePatterns(dir)
	if err != nil {
		t.Fatal(err)
	}
	log := func() string {
		h, err := config{dir: dir, dry: true}.one(5, pat)
		if err != nil {
			t.Fatal(err)
		}
		return h.log.String()
	}
	if a, b := log(), log(); a != b || strings.Count(a, "\n") < 5 {
		t.Errorf("seed 5 made\n%s\nand then\n%s", a, b)
	}
}

func TestNamed(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		old, new string
		es       []extent
		wrong    string
	}{
		{"abcd", "abcd", nil, ""},
		{"abcd", "abxd", []extent{{Start: 2, Length: 1}}, ""},
		{"abcd", "abxd", []extent{{Start: 0, Length: 4}}, ""},
		{"abcd", "abxd", nil, "byte 2 differs"},
		{"abcd", "abxy", []extent{{Start: 2, Length: 1}}, "byte 3 differs"},
		{"abcd", "xbcy", []extent{{Start: 3, Length: 1}, {Start: 0, Length: 1}}, "byte 0 differs"},
		{"abcd", "xbcy", []extent{{Start: 0, Length: 2}, {Start: 1, Length: 3}}, "after 2"},
		{"abcd", "ab\x00d", []extent{{Start: 2, Length: 1, Zero: true}}, ""},
		{"abcd", "abxd", []extent{{Start: 2, Length: 1, Zero: true}}, "byte 2 is 0x78"},
		{"abcd", "ab", nil, ""},
		{"abcd", "ab", []extent{{Start: 1, Length: 3}}, "of 2 bytes"},
		{"ab", "ab\x00\x00", nil, "grown from 2"},
		{"ab", "ab\x00\x00", []extent{{Start: 3, Length: 1}}, "grown from 2"},
		{"ab", "ab\x00\x00", []extent{{Start: 2, Length: 2, Zero: true}}, ""},
	} {
		err := named(c.es, file("old", c.old), file("new", c.new))
		if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%q to %q by %v: %v, want %q", c.old, c.new, c.es, err, c.wrong)
		}
	}
}

func TestCompareFiles(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("x", 1<<18)
	for _, c := range []struct{ a, b, wrong string }{
		{"", "", ""},
		{"abc", "abc", ""},
		{long + "a", long + "a", ""},
		{long + "a", long + "b", "byte 262144: 0x61"},
		{long, long + "b", "ends at 262144"},
		{"abc", "abcd", "ends at 3"},
		{"abcd", "abc", "ends at 3"},
		{"", "a", "ends at 0"},
	} {
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		for name, content := range map[string]string{a: c.a, b: c.b} {
			if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		err := compareFiles(a, b)
		if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%d and %d bytes: %v, want %q", len(c.a), len(c.b), err, c.wrong)
		}
	}
}

func TestJoin(t *testing.T) {
	at := func(n int64) *int64 { return &n }
	es := join([]extent{
		{Start: 0, Length: 4, Data: true, Offset: at(100)},
		{Start: 4, Length: 4, Data: true, Offset: at(104)},
		{Start: 8, Length: 4, Data: true, Offset: at(200)},
		{Start: 12, Length: 4, Zero: true},
		{Start: 16, Length: 4, Zero: true},
		{Start: 20, Length: 4, Zero: true, Depth: 1},
	})
	var lengths []int64
	for _, e := range es {
		lengths = append(lengths, e.Length)
	}
	if len(lengths) != 4 || lengths[0] != 8 || lengths[1] != 4 || lengths[2] != 8 || lengths[3] != 4 {
		t.Errorf("joined to lengths %v", lengths)
	}
}
