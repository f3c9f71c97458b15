package testtool_test

import (
	"os"
	"os/exec"
	"testing"

	"cbt/internal/testtool"
)

// fakeTB records how a helper ended the test that called it.
type fakeTB struct {
	testing.TB
	skipped, failed bool
}

func (f *fakeTB) Helper()               {}
func (f *fakeTB) Skip(...any)           { f.skipped = true; panic(f) }
func (f *fakeTB) Skipf(string, ...any)  { f.skipped = true; panic(f) }
func (f *fakeTB) Fatalf(string, ...any) { f.failed = true; panic(f) }

// endOf calls a helper and says how it ended its test.
func endOf(t *testing.T, call func(testing.TB)) (f fakeTB) {
	t.Helper()
	p := &fakeTB{TB: t}
	defer func() {
		if r := recover(); r != nil && r != any(p) {
			panic(r)
		}
		f = *p
	}()
	call(p)
	return *p
}

func TestMissingTool(t *testing.T) {
	need := func(tb testing.TB) { testtool.Need(tb, "no-such-tool-at-all") }
	t.Setenv(testtool.RequireEnv, "")
	if f := endOf(t, need); !f.skipped || f.failed {
		t.Errorf("without %s: %+v, want a skip", testtool.RequireEnv, f)
	}
	t.Setenv(testtool.RequireEnv, "1")
	if f := endOf(t, need); f.skipped || !f.failed {
		t.Errorf("with %s=1: %+v, want a failure", testtool.RequireEnv, f)
	}
}

func TestMore(t *testing.T) {
	more := func(tb testing.TB) { testtool.More(tb) }
	t.Setenv(testtool.MoreEnv, "")
	if f := endOf(t, more); !f.skipped || f.failed {
		t.Errorf("without %s: %+v, want a skip", testtool.MoreEnv, f)
	}
	t.Setenv(testtool.MoreEnv, "1")
	if f := endOf(t, more); f.skipped || f.failed {
		t.Errorf("with %s=1: %+v, want neither", testtool.MoreEnv, f)
	}
}

func TestOtherName(t *testing.T) {
	if f := endOf(t, func(tb testing.TB) { testtool.More(tb) }); !f.failed {
		t.Errorf("a name that make more does not find: %+v, want a failure", f)
	}
}

func TestRun(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("no sh")
	}
	if got := testtool.Run(t, "sh", "-c", "echo out; echo err >&2; echo $LC_ALL"); got != "out\nC\n" {
		t.Errorf("Run = %q", got)
	}
	if f := endOf(t, func(tb testing.TB) { testtool.Run(tb, "sh", "-c", "exit 3") }); !f.failed {
		t.Error("Run of a failing tool did not fail the test")
	}
	out, err := testtool.Try(t, "sh", "-c", "echo out; echo err >&2; exit 3")
	if ee, ok := err.(*exec.ExitError); !ok || ee.ExitCode() != 3 || out != "out\nerr\n" {
		t.Errorf("Try = %q, %v", out, err)
	}
}

func TestFindInSbin(t *testing.T) {
	if _, err := os.Stat("/usr/sbin/mkfs.ext4"); err != nil {
		t.Skip("no /usr/sbin/mkfs.ext4")
	}
	t.Setenv("PATH", "/nonexistent")
	if path, ok := testtool.Find("mkfs.ext4"); !ok {
		t.Errorf("mkfs.ext4 not found outside PATH: %q", path)
	}
}
