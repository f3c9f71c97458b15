package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"cbt/internal/testtool"
)

const bashCompletionPackage = "/usr/share/bash-completion/bash_completion"

// typedInto has an interactive shell at a terminal read lines that somebody types, the tabulator key
// included, and returns what "cbt" was called with by each: a function says it. A shell reads one key after
// the other, so nobody has to wait but for its end.
func typedInto(t *testing.T, dir, shell, setup string, typed []string) (got []string) {
	t.Helper()
	script := testtool.Need(t, "script")
	if err := os.WriteFile(filepath.Join(dir, "setup"), []byte(setup), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), script, "-qec", shell, os.DevNull)
	c.Dir = dir
	c.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "HOME="+dir, "TERM=dumb", "PS1=$ ", "INPUTRC=/dev/null")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	said := filepath.Join(dir, "said")
	os.Remove(said)
	lines := func() []string {
		b, _ := os.ReadFile(said)
		return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	}
	for n, line := range append([]string{". ./setup; cbt ready"}, typed...) {
		_, _ = in.Write([]byte(line + "\n"))
		for end := time.Now().Add(20 * time.Second); len(lines()) < n+1 || lines()[n] == ""; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				_ = c.Process.Kill()
				_ = c.Wait()
				t.Fatalf("%s, typed %q:\n%s", shell, line, out.Bytes())
			}
		}
	}
	_, _ = in.Write([]byte("exit\n"))
	in.Close()
	_ = c.Wait()
	return lines()[1:]
}

// Real shells complete commands, flags, what flags take, snapshots, deltas and streams.
func TestShellsComplete(t *testing.T) {
	if _, err := os.Stat(bashCompletionPackage); err != nil {
		testtool.Missing(t, "bash-completion is not installed")
	}
	dir := everySources(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	// The function bash runs is called cbt, so "cbt __complete" goes to the program.
	if err := os.Symlink(at("bin/real"), at("bin/cbt")); err != nil {
		t.Fatal(err)
	}
	const say = `
cbt() { if [ "$1" = __complete ]; then command cbt "$@"; else printf '%s|' "$@" >>said; echo >>said; fi; }
`
	bash := ". " + bashCompletionPackage + "\n. <(command cbt completion bash)" + say
	zsh := "autoload -U compinit; compinit -u -D\n. <(command cbt completion zsh)" + say
	compare := func(shell, setup string, pairs ...string) {
		t.Helper()
		var typed []string
		for i := 0; i < len(pairs); i += 2 {
			typed = append(typed, pairs[i])
		}
		for i, got := range typedInto(t, dir, shell, setup, typed) {
			if want := pairs[2*i+1]; got != want {
				t.Errorf("%s: %q became %q, not %q", shell, typed[i], got, want)
			}
		}
	}
	compare("bash --noprofile --norc -i", bash,
		"cbt rest\t", "restore|",
		"cbt info src/disk.qcow2@mon\t", "info|src/disk.qcow2@monday|",
		"cbt backup sda=src/disk.qcow2@t\t", "backup|sda=src/disk.qcow2@tuesday|",
		"cbt diff --method cont\t", "diff|--method|content|",
		"cbt hash --algo=sha5\t", "hash|--algo=sha512|",
		"cbt ram dump --format bl\t", "ram|dump|--format|blocks|",
		"cbt restore src/deltas@lat\t", "restore|src/deltas@latest|",
		"cbt cat src/deltas/tue.cbt@ram/pc.ra\t", "cat|src/deltas/tue.cbt@ram/pc.ram|",
		"cbt cat src/disk.qcow2 --snapshot mon\t", "cat|src/disk.qcow2|--snapshot|monday|",
		"cbt verify src/del\tmo\t", "verify|src/deltas/mon.cbt|")
	testtool.Need(t, "zsh")
	compare("zsh -f -i", zsh,
		"cbt rest\t", "restore|",
		"cbt info src/disk.qcow2@mon\t", "info|src/disk.qcow2@monday|",
		"cbt restore src/deltas@lat\t", "restore|src/deltas@latest|",
		"cbt diff --method cont\t", "diff|--method|content|")
}

// A name out of an image that a shell would find a meaning in is not offered.
func TestCompletionIsHarmless(t *testing.T) {
	got := onlyHarmless([]string{"monday", "$(reboot)", "a b", "`x`", "-rf", "a;b", "a\nb", "snap-1.2_3:4", "", "a'b", "~x"})
	if strings.Join(got, " ") != "monday snap-1.2_3:4" {
		t.Errorf("%q", got)
	}
}

// What a flag takes that its help lists is offered, and nothing else.
func TestFlagWordsAreThoseOfTheHelp(t *testing.T) {
	var walk func(c *cobra.Command)
	seen := 0
	walk = func(c *cobra.Command) {
		name := strings.TrimPrefix(c.CommandPath(), "cbt ")
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			words := flagWords[f.Name]
			if own := commandFlagWords[name+" --"+f.Name]; own != nil {
				words = own
			}
			if words == nil {
				if strings.Contains(f.Usage, "`FORMAT`") || strings.Contains(f.Usage, "`METHOD`") || strings.Contains(f.Usage, "`LEVEL`") {
					t.Errorf("%s --%s: what it takes is not offered", name, f.Name)
				}
				return
			}
			seen++
			if f.Name == "spot-check" || f.Name == "rebase-every" { // sizes and times
				return
			}
			for _, w := range words {
				if !strings.Contains(strings.ReplaceAll(f.Usage, "`", ""), w) {
					t.Errorf("%s --%s: offers %s, which its help does not have: %s", name, f.Name, w, f.Usage)
				}
			}
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand(&app{}))
	if seen < 10 {
		t.Errorf("only %d flags were looked at", seen)
	}
}
