package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/infile"
)

func TestMain(m *testing.M) {
	testscript.Main(racesOf{m}, map[string]func(){
		"cbt": func() {
			infile.InstantByMtime = os.Getenv("CBT_TEST_INSTANT") == "mtime"
			ctx, stop := WithSignals(context.Background())
			code := Run(ctx, System(), os.Args[1:])
			stop()
			os.Exit(code)
		},
	})
}

// run runs a command line in process.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code = Run(t.Context(), Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut}, args)
	return code, out.String(), errOut.String()
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args string // split at "|"
		code int
		want string // of the one line on stderr
	}{
		{"", fail.UsageCode, "no command given"},
		{"frobnicate", fail.UsageCode, `unknown command "frobnicate"`},
		{"inf|x", fail.UsageCode, "did you mean cbt info?"},
		{"--frobnicate", fail.UsageCode, "unknown flag: --frobnicate"},
		{"info|--frobnicate|x", fail.UsageCode, "unknown flag: --frobnicate"},
		{"info", fail.UsageCode, "info: REF is missing: usage is `cbt info REF`"},
		{"info|a|b", fail.UsageCode, "one argument too many: b"},
		{"version|x", fail.UsageCode, "takes no arguments"},
		{"cat|--offset|x|r", fail.UsageCode, "x is no size"},
		{"cat|--offset", fail.UsageCode, "flag needs an argument"},
		{"help|frobnicate", fail.UsageCode, `unknown command "frobnicate"`},
		{"completion|tcsh", fail.UsageCode, "unknown shell tcsh"},
		{"info|/nonexistent", fail.Failed, "no such file"},
		{"info|a\x1b[2J", fail.Failed, `a\x1b[2J`},
		{"info|--format|vmdk|x", fail.UsageCode, "--format vmdk: is qcow2, raw or state"},
		{"info|--allow|/nonexistent|x", fail.UsageCode, "--allow"},
	} {
		args := strings.Split(c.args, "|")
		if c.args == "" {
			args = nil
		}
		code, stdout, stderr := run(t, args...)
		if code != c.code || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("cbt %q: exit %d, stdout %q, stderr %q; want exit %d and %q", args, code, stdout, stderr, c.code, c.want)
		}
		if !strings.HasPrefix(stderr, "cbt: ") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("cbt %q: stderr %q is not one line that starts with cbt:", args, stderr)
		}
	}
}

// An empty argument comes from a variable that is not set.
func TestEmptyArguments(t *testing.T) {
	for _, args := range [][]string{
		{"info", ""}, {"cat", ""}, {"map", "x", ""}, {"man", ""}, {"info", "--snapshot", "", "x"},
		{"info", "--snapshot=", "x"}, {"info", "--allow", "", "x"}, {"info", "--format", "", "x"},
	} {
		code, stdout, stderr := run(t, args...)
		if code != fail.UsageCode || stdout != "" || !strings.Contains(stderr, "is a variable unset?") {
			t.Errorf("cbt %q: exit %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

func TestJSONErrors(t *testing.T) {
	for _, args := range [][]string{
		{"--json", "info", "/nonexistent"}, {"info", "--json", "--bogus"}, {"info", "--bogus", "--json"}, {"bogus", "--json"},
	} {
		code, stdout, stderr := run(t, args...)
		var e struct {
			Error string
			Exit  int
		}
		if err := json.Unmarshal([]byte(stderr), &e); err != nil || e.Error == "" || e.Exit != code || stdout != "" {
			t.Errorf("cbt %q: exit %d, stdout %q, stderr %q: %v", args, code, stdout, stderr, err)
		}
	}
}

// Every command says how it ends and has an example.
func TestHelp(t *testing.T) {
	root := newRootCommand(&app{})
	for _, c := range append(root.Commands(), root) {
		args := strings.Fields(c.CommandPath())[1:]
		code, stdout, stderr := run(t, append(args, "--help")...)
		if code != fail.Done || stderr != "" {
			t.Errorf("%s --help: exit %d, %q", c.CommandPath(), code, stderr)
		}
		for _, want := range []string{"\nUsage:\n", "\nExamples:\n", "\nEXIT STATUS\n", "128+N"} {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s --help lacks %q", c.CommandPath(), want)
			}
		}
		if c != root && c.Name() != "help" {
			if _, again, _ := run(t, "help", c.Name()); again != stdout {
				t.Errorf("help %s differs from %s --help:\n%s\n%s", c.Name(), c.Name(), again, stdout)
			}
		}
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestStdoutFails(t *testing.T) {
	for _, c := range []struct {
		err    error
		code   int
		silent bool
	}{
		{syscall.ENOSPC, fail.Failed, false},
		{&os.PathError{Op: "write", Path: "|1", Err: syscall.EPIPE}, 141, true},
	} {
		for _, args := range [][]string{{"version"}, {"--help"}, {"version", "--json"}, {"completion", "bash"}, {"help", "info"}} {
			var stderr bytes.Buffer
			code := Run(t.Context(), Env{Stdout: failingWriter{c.err}, Stderr: &stderr}, args)
			if code != c.code || (stderr.Len() == 0) != c.silent {
				t.Errorf("cbt %q with stdout failing by %v: exit %d, stderr %q; want exit %d", args, c.err, code, &stderr, c.code)
			}
		}
	}
}

// The bytes of an image could command a terminal.
func TestCatRefusesTerminal(t *testing.T) {
	var out, errOut bytes.Buffer
	code := Run(t.Context(), Env{Stdout: &out, Stderr: &errOut, StdoutTerminal: true}, []string{"cat", "/dev/null"})
	if code != fail.UsageCode || out.Len() > 0 || !strings.Contains(errOut.String(), "stdout is a terminal") {
		t.Errorf("exit %d, %q, %q", code, &out, &errOut)
	}
}

// with runs a command of the test's own.
func with(t *testing.T, ctx context.Context, runE func() error, args ...string) (int, string) {
	t.Helper()
	saved := commands
	defer func() { commands = saved }()
	commands = append(commands[:len(commands):len(commands)], func(*app) *cobra.Command {
		return &cobra.Command{Use: "test", RunE: func(*cobra.Command, []string) error { return runE() }}
	})
	var stderr bytes.Buffer
	code := Run(ctx, Env{Stdout: &bytes.Buffer{}, Stderr: &stderr}, append(args, "test"))
	return code, stderr.String()
}

func TestExitCodes(t *testing.T) {
	for want, err := range map[int]error{
		fail.Done: nil, fail.Failed: errors.New("x"), fail.UsageCode: fail.Usage("x"), fail.FindingsCode: fail.Findings("x"),
		fail.WrongBaseCode: fail.WrongBase("x"), fail.BusyCode: fail.Busy("x"),
	} {
		code, stderr := with(t, t.Context(), func() error { return err })
		if code != want || (stderr != "cbt: x\n") != (err == nil) {
			t.Errorf("%v: exit %d, %q; want %d", err, code, stderr, want)
		}
	}
}

func TestPanic(t *testing.T) {
	code, stderr := with(t, t.Context(), func() error { panic("boom\n\x1b[2J") })
	if code != fail.Failed || stderr != `cbt: internal error: boom\n\x1b[2J`+"\n" {
		t.Errorf("exit %d, %q", code, stderr)
	}
	code, stderr = with(t, t.Context(), func() error { panic("boom") }, "-v")
	if code != fail.Failed || !strings.Contains(stderr, "cli_test.go") {
		t.Errorf("-v: exit %d, no stack in %q", code, stderr)
	}
}

func TestSignalExitCode(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE} {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(&signalError{sig})
		if code, stderr := with(t, ctx, func() error { return ctx.Err() }); code != 128+int(sig) {
			t.Errorf("%v: exit %d, %q", sig, code, stderr)
		}
		if code, stderr := with(t, ctx, func() error { return nil }); code != fail.Done {
			t.Errorf("%v after all was done: exit %d, %q", sig, code, stderr)
		}
	}
}
