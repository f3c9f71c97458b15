// Command tally runs go test, once for each list of arguments between "--", prints what failed and what
// was skipped, and ends with one line that counts the tests: "N passed, N failed, N skipped".
// It exits with 1 if a test, a package or a build failed, or if there was no test at all.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	c := newCount(os.Stdout)
	for _, args := range split(os.Args[1:]) {
		if err := c.run(args); err != nil {
			c.failed++
			fmt.Printf("FAIL go test %s: %v\n", strings.Join(args, " "), err)
		}
	}
	fmt.Printf("\n%d passed, %d failed, %d skipped\n", c.passed, c.failed, c.skipped)
	if c.failed > 0 || c.passed == 0 {
		os.Exit(1)
	}
}

// split cuts the arguments at each "--".
func split(args []string) (runs [][]string) {
	for {
		i := slices.Index(args, "--")
		if i < 0 {
			return append(runs, args)
		}
		runs, args = append(runs, args[:i]), args[i+1:]
	}
}

// run runs go test. Its error is one that no event told of.
func (c *count) run(args []string) error {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	before := c.failed
	readErr := c.read(out)
	if readErr != nil {
		io.Copy(io.Discard, out)
	}
	if err := cmd.Wait(); err != nil && c.failed == before {
		return err
	}
	return readErr
}

// An event is a line of go test -json; see go doc test2json and go help buildjson.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build events
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

type key struct{ pkg, test string }

// A count follows the events of go test and prints what a person wants to see of them.
type count struct {
	out                     io.Writer
	passed, failed, skipped int
	output                  map[key]*strings.Builder // of tests that run
	inPackage               map[string]*[2]int       // tests that ended, and that failed
}

func newCount(out io.Writer) *count {
	return &count{out: out, output: map[key]*strings.Builder{}, inPackage: map[string]*[2]int{}}
}

func (c *count) read(r io.Reader) error {
	for d := json.NewDecoder(r); ; {
		var e event
		if err := d.Decode(&e); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		c.add(e)
	}
}

func (c *count) add(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		io.WriteString(c.out, e.Output)
	case "start", "run":
		c.output[k] = &strings.Builder{}
		if e.Test == "" {
			c.inPackage[e.Package] = new([2]int)
		}
	case "output":
		if b := c.output[k]; b != nil {
			b.WriteString(e.Output)
		}
	case "pass", "fail", "skip":
		if e.Test == "" {
			c.endPackage(e)
		} else {
			c.endTest(e)
		}
		delete(c.output, k)
	}
}

func (c *count) endTest(e event) {
	n := c.inPackage[e.Package]
	n[0]++
	text := c.text(e)
	switch e.Action {
	case "pass":
		c.passed++
	case "skip":
		c.skipped++
		fmt.Fprintf(c.out, "skip %s %s: %s\n", e.Package, e.Test, reason(text))
	case "fail":
		c.failed++
		n[1]++
		fmt.Fprintf(c.out, "FAIL %s %s (%.2fs)\n%s", e.Package, e.Test, e.Elapsed, text)
	}
}

// endPackage counts tests that never ended (a panic, a timeout) and a package that failed as a whole.
func (c *count) endPackage(e event) {
	n := c.inPackage[e.Package]
	if n == nil {
		n = new([2]int)
	}
	if e.Action == "fail" {
		for _, k := range c.unfinished(e.Package) {
			c.endTest(event{Action: "fail", Package: k.pkg, Test: k.test})
			delete(c.output, k)
		}
		if n[1] == 0 {
			c.failed++
		}
		fmt.Fprintf(c.out, "FAIL %s (%.1fs)\n%s", e.Package, e.Elapsed, c.text(e))
		return
	}
	if n[0] > 0 {
		fmt.Fprintf(c.out, "ok   %s %d tests (%.1fs)\n", e.Package, n[0], e.Elapsed)
	}
}

func (c *count) unfinished(pkg string) (keys []key) {
	for k := range c.output {
		if k.pkg == pkg && k.test != "" {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b key) int { return strings.Compare(a.test, b.test) })
	return keys
}

func (c *count) text(e event) string {
	if b := c.output[key{e.Package, e.Test}]; b != nil {
		return b.String()
	}
	return ""
}

// reason is what a skipped test said, on one line.
func reason(text string) string {
	var said []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			said = append(said, line)
		}
	}
	return strings.Join(said, " ")
}
