// Package testtool runs the real tools that tests compare with.
package testtool

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// RequireEnv names the environment variable that, set to "1", turns a missing
// tool from a skipped test into a failed one.
const RequireEnv = "CBT_REQUIRE_TOOLS"

// MoreEnv names the environment variable that, set to "1", has the tests run
// that are part of make more.
const MoreEnv = "CBT_MORE"

// sbin is where a user's PATH may not lead.
var sbin = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

// Find returns the path of a tool, looked for in PATH and the sbin
// directories, and whether it is there.
func Find(name string) (string, bool) {
	if path, err := exec.LookPath(name); err == nil {
		return path, true
	}
	for _, dir := range sbin {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, true
		}
	}
	return "", false
}

// Need returns the path of a tool. If there is none it skips the test, or
// fails it where RequireEnv is set to "1".
func Need(t testing.TB, name string) string {
	t.Helper()
	path, ok := Find(name)
	if !ok {
		Missing(t, name+" is not installed")
	}
	return path
}

// Missing skips the test for what it lacks, or fails it where RequireEnv is set
// to "1".
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv(RequireEnv) == "1" {
		t.Fatalf("%s, and %s=1", what, RequireEnv)
	}
	t.Skipf("%s", what)
}

// More skips the test unless MoreEnv is set to "1", as make more does. Such
// tests take long, or run tools that make test does not install; make more
// finds them by their names, which begin with TestMore.
func More(t testing.TB) {
	t.Helper()
	if !strings.HasPrefix(t.Name(), "TestMore") {
		t.Fatalf("make more would not find %s: its name does not begin with TestMore", t.Name())
	}
	if os.Getenv(MoreEnv) != "1" {
		t.Skip("part of make more")
	}
}

// Run runs a tool, which it Needs, in the C locale and returns its standard
// output. The test fails if the tool does.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, errOut, err := run(Need(t, name), args)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, errOut)
	}
	return out
}

// Try is Run for a tool that may fail: it returns standard output and standard
// error together, and an *exec.ExitError if the tool did fail.
func Try(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	out, errOut, err := run(Need(t, name), args)
	return out + errOut, err
}

func run(path string, args []string) (stdout, stderr string, err error) {
	var out, errOut bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}
