package arch

import (
	"os/exec"
	"strings"
	"testing"

	"cbt/internal/testtool"
)

// unraced are programs and what they share: their tests run the binary, which is built without -race.
var unraced = []string{"fuzz/base", "fuzz/kill", "fuzz/lvm", "fuzz/torture", "fuzz/wake", "bench"}

// TestEveryPackageIsRaced fails at a package with tests that make test and make race would not run with -race, or not at all.
func TestEveryPackageIsRaced(t *testing.T) {
	cmd := exec.Command(testtool.Need(t, "make"), "-n", "test", "race")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var raced, others []string
	text := strings.ReplaceAll(string(out), "\\\n", " ")
	for run := range strings.SplitSeq(text[strings.Index(text, "internal/tally")+len("internal/tally"):], " -- ") {
		words := strings.Fields(run)
		race := false
		for _, w := range words {
			race = race || w == "-race"
			top, ok := strings.CutPrefix(w, "./")
			switch {
			case ok && race:
				raced = append(raced, top)
			case ok:
				others = append(others, top)
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
		programs := []string{}
		for _, name := range unraced {
			programs = append(programs, name+"/...")
		}
		switch {
		case !in(raced) && !in(programs):
			t.Errorf("make test does not run %s with -race", p.name())
		case !in(raced) && !in(others):
			t.Errorf("make test does not run %s", p.name())
		}
	}
}
