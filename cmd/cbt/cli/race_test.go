package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// racesOf runs the tests, which start this binary as cbt more than a thousand times. Built with -race, each of these
// processes would sleep for a second before it ends (atexit_sleep_ms), and a test that expects a failure would not see
// that it was a race. So they do not sleep, and write races to files: if there is one at the end, the run fails.
type racesOf struct{ *testing.M }

func (r racesOf) Run() int {
	dir, err := os.MkdirTemp("", "cbt-races-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Setenv("GORACE", "atexit_sleep_ms=0 log_path="+filepath.Join(dir, "race"))
	code := r.M.Run()
	found, _ := filepath.Glob(filepath.Join(dir, "race.*"))
	for _, name := range found {
		report, _ := os.ReadFile(name)
		fmt.Fprintf(os.Stderr, "a process that a test started:\n%s\n", report)
		code = 1
	}
	return code
}

// raceOptions makes the processes of a script do as racesOf says: its environment is its own.
func raceOptions(env *testscript.Env) { env.Setenv("GORACE", os.Getenv("GORACE")) }
