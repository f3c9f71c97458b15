package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// What go test says of a package with these tests, by hand and by go test itself.
func TestCount(t *testing.T) {
	for _, test := range []struct {
		name, source            string
		passed, failed, skipped int
		says                    []string
	}{
		{"pass", `func TestA(t *testing.T) { t.Run("sub", func(t *testing.T) {}) }`, 2, 0, 0, []string{"ok   example 2 tests"}},
		{"skip", `func TestA(t *testing.T) { t.Skip("no tool") }`, 0, 0, 1, []string{"skip example TestA", "no tool"}},
		{"fail", `func TestA(t *testing.T) { t.Error("six is not seven") }
			func TestB(t *testing.T) {}`, 1, 1, 0, []string{"FAIL example TestA", "six is not seven", "FAIL example ("}},
		{"panic", `func TestA(t *testing.T) {}
			func TestB(t *testing.T) { panic("lost") }`, 1, 1, 0, []string{"FAIL example TestB", "panic: lost"}},
		{"exit", `func TestMain(m *testing.M) { os.Exit(3) }`, 0, 1, 0, []string{"FAIL example ("}},
		{"half way", `func TestA(t *testing.T) { t.Log("half way"); os.Exit(3) }`, 0, 1, 0, []string{"FAIL example TestA"}},
		{"timeout", `func TestA(t *testing.T) { select {} }`, 0, 1, 0, []string{"FAIL example TestA", "test timed out"}},
		{"build", `func TestA(t *testing.T) { undefined() }`, 0, 1, 0, []string{"undefined: undefined"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			write(t, "go.mod", "module example\ngo 1.26\n")
			write(t, "a_test.go", "package example\nimport (\"os\"; \"testing\")\nvar _ = os.Exit\n"+test.source)
			var out strings.Builder
			c := newCount(&out)
			if err := c.run([]string{"-timeout=2s", "./..."}); err != nil {
				t.Error(err)
			}
			if c.passed != test.passed || c.failed != test.failed || c.skipped != test.skipped {
				t.Errorf("%d passed, %d failed, %d skipped; want %d, %d, %d\n%s",
					c.passed, c.failed, c.skipped, test.passed, test.failed, test.skipped, out.String())
			}
			for _, text := range test.says {
				if !strings.Contains(out.String(), text) {
					t.Errorf("output lacks %q:\n%s", text, out.String())
				}
			}
		})
	}
}

func TestNoSuchPackage(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "go.mod", "module example\ngo 1.26\n")
	var out strings.Builder
	c := newCount(&out)
	if err := c.run([]string{"./absent"}); err == nil && c.failed == 0 {
		t.Errorf("a package that does not exist counts as success:\n%s", out.String())
	}
}

func TestSplit(t *testing.T) {
	got := split([]string{"-race", "./a", "--", "./b"})
	if want := [][]string{{"-race", "./a"}, {"./b"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Clean(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
