package arch

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"cbt/internal/testtool"
)

// unraced are programs whose tests run the binary, which is built without -race.
var unraced = []string{"fuzz/base", "fuzz/kill", "fuzz/lvm", "fuzz/torture", "fuzz/wake"}

// TestEveryPackageIsRaced fails at a package with tests that make test does not run with -race.
func TestEveryPackageIsRaced(t *testing.T) {
	cmd := exec.Command(testtool.Need(t, "make"), "-n", "test")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var raced []string
	text := strings.ReplaceAll(string(out), "\\\n", " ")
	for run := range strings.SplitSeq(text[strings.Index(text, "internal/tally")+len("internal/tally"):], " -- ") {
		words := strings.Fields(run)
		race := false
		for _, w := range words {
			race = race || w == "-race"
			top, ok := strings.CutPrefix(w, "./")
			if ok && race {
				raced = append(raced, top)
			}
		}
	}
	for _, p := range list(t, "linux") {
		if len(p.TestImports)+len(p.XTestImports) == 0 {
			continue
		}
		in := func(tops []string) bool {
			for _, top := range tops {
				all, below := strings.CutSuffix(top, "/...")
				if p.name() == all || below && strings.HasPrefix(p.name(), all+"/") {
					return true
				}
			}
			return false
		}
		if !in(raced) && !slices.Contains(unraced, p.name()) {
			t.Errorf("make test does not run %s with -race", p.name())
		}
	}
}
