package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"cbt/internal/audit"
	"cbt/internal/dm"
	"cbt/internal/fail"
)

func TestAuditPath(t *testing.T) {
	for _, c := range []struct{ args, env, want string }{
		{"", "", ""}, {"", "e", "e"}, {"cat x --audit a", "e", "a"}, {"--audit=a cat x", "", "a"}, {"cat -- --audit a", "", ""},
		{"--audit a --audit=b", "", "b"}, {"cat --audit", "e", "e"}, {"__complete --audit a", "e", ""}, {"cat --audited=a", "", ""},
	} {
		if got := auditPath(strings.Fields(c.args), c.env); got != c.want {
			t.Errorf("%q, %q: %q, want %q", c.args, c.env, got, c.want)
		}
	}
}

// audited runs a command line with --audit and returns the lines of the record.
func audited(t *testing.T, env Env, args ...string) (code int, stderr string, lines []map[string]any) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit")
	var errOut bytes.Buffer
	env.Stderr = &errOut
	code = Run(t.Context(), env, append(args, "--audit", path))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, l)
	}
	return code, errOut.String(), lines
}

func TestAuditPanic(t *testing.T) {
	before := commands
	defer func() { commands = before }()
	commands = append(slices.Clip(commands), func(*app) *cobra.Command {
		return &cobra.Command{Use: "panic", RunE: func(*cobra.Command, []string) error { panic("out of thin air") }}
	})
	code, _, lines := audited(t, Env{Stdout: &bytes.Buffer{}}, "panic")
	last := lines[len(lines)-1]
	if code != fail.Failed || last["event"] != "end" || last["exit"] != 1.0 || !strings.Contains(fmt.Sprint(last["error"]), "out of thin air") {
		t.Fatalf("exit %d, %v", code, last)
	}
}

// meddler writes to a file while it is read.
type meddler struct {
	t    *testing.T
	path string
	off  int64
	done bool
}

func (m *meddler) Write(p []byte) (int, error) {
	if !m.done {
		m.done = true
		st, err := os.Stat(m.path)
		if err != nil {
			m.t.Fatal(err)
		}
		f, err := os.OpenFile(m.path, os.O_WRONLY, 0)
		if err != nil {
			m.t.Fatal(err)
		}
		_, err = f.WriteAt([]byte("x"), m.off)
		if err := errors.Join(err, f.Close(), os.Chtimes(m.path, time.Time{}, st.ModTime())); err != nil {
			m.t.Fatal(err)
		}
	}
	return len(p), nil
}

// Somebody writes to a source and hides it from whoever looks at its mtime. With
// --frozen nobody looks at the ctime either, but hashes tell.
func TestAuditSeesWhatTimesHide(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, bytes.Repeat([]byte("y"), 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		hash string
		code int
	}{{"both", fail.Failed}, {"before", fail.Done}, {"after", fail.Done}} {
		code, stderr, lines := audited(t, Env{Stdout: &meddler{t: t, path: path, off: 100 + int64(len(c.hash))}}, "cat", path)
		last := lines[len(lines)-3]
		if code != fail.Failed || !strings.Contains(stderr, "its ctime did") || last["event"] != "input-after" || last["changed"] != true || last["ctime"] == nil {
			t.Errorf("without --frozen: exit %d, %q, %v", code, stderr, last)
		}
		// At another byte each time, so that it changes something.
		off := int64(len(c.hash))
		code, stderr, lines = audited(t, Env{Stdout: &meddler{t: t, path: path, off: off}}, "cat", path, "--frozen", "--hash", c.hash)
		if code != c.code || (code == fail.Failed) != strings.Contains(stderr, "changed while it was read: its SHA-256 was") {
			t.Errorf("--hash %s: exit %d, %q", c.hash, code, stderr)
		}
		var sums []any
		for _, l := range lines {
			if l["path"] == path && l["sha256"] != nil {
				sums = append(sums, l["sha256"])
			}
		}
		content, _ := os.ReadFile(path)
		now := fmt.Sprintf("%x", sha256.Sum256(content))
		if c.hash == "both" && (len(sums) != 2 || sums[0] == sums[1] || sums[1] != now) || c.hash != "both" && len(sums) != 1 ||
			c.hash == "after" && sums[0] != now || c.hash == "before" && sums[0] == now {
			t.Errorf("--hash %s: %q, it is %s now", c.hash, sums, now)
		}
	}
}

// A running machine may write to the file of a snapshot.
func TestAuditOfARunningMachine(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.qcow2")
	if err := unpackSample("../../../testdata/v3.qcow2.gz", path); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, st.Size()+65536); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]int{path + "@monday": fail.Done, path: fail.Failed} {
		code, stderr, lines := audited(t, Env{Stdout: &meddler{t: t, path: path, off: st.Size() + int64(want)}}, "cat", ref, "--hash", "both")
		if code != want || want == fail.Done && !strings.Contains(stderr, "something else wrote to it") {
			t.Errorf("%s: exit %d, %q", ref, code, stderr)
		}
		changed := false
		for _, l := range lines {
			changed = changed || l["event"] == "input-after" && l["changed"] == true
		}
		if !changed {
			t.Errorf("%s: %v", ref, lines)
		}
	}
}

// What is no text is kept too.
func TestAuditOfOddNames(t *testing.T) {
	_, _, lines := audited(t, Env{Stdout: &bytes.Buffer{}}, "cat", "a\xff\x1b")
	args := lines[0]["arguments"].([]any)
	if fmt.Sprint(args[1]) != "map[hex:61ff1b]" {
		t.Error(args)
	}
}

// A run that a second signal ends at once still has an end in its record.
type cutter struct{ bytes.Buffer }

func (c *cutter) Write(p []byte) (int, error) {
	audit.EndAll(143, errCutShort)
	return c.Buffer.Write(p)
}

func TestAuditOfARunCutShort(t *testing.T) {
	code, _, lines := audited(t, Env{Stdout: &cutter{}}, "version")
	last := lines[len(lines)-1]
	if code != fail.Done || len(lines) != 2 || last["event"] != "end" || last["exit"] != 143.0 || last["error"] != errCutShort.Error() {
		t.Errorf("exit %d, %v", code, lines)
	}
	audit.Running.Lock()
	defer audit.Running.Unlock()
	if len(audit.Running.List) > 0 {
		t.Error("records of runs that have ended are kept")
	}
}

// Devices of this host's volumes are recorded once each.
func TestAuditDevice(t *testing.T) {
	a := &app{Env: Env{Stdout: &bytes.Buffer{}, Getenv: func(string) string { return "" }}}
	path := filepath.Join(t.TempDir(), "audit")
	if err := a.startAudit(t.Context(), []string{"cat", "lvm:vg/lv", "--audit", path}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.audit.Device("/dev/dm-3", dm.Number{Major: 253, Minor: 3}, 4096); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.audit.End(0, nil); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(path)
	if strings.Count(string(text), `"path":"/dev/dm-3","real":"/dev/dm-3","kind":"volume","device":"253:3","size":4096,"note":"a device`) != 1 {
		t.Errorf("%s", text)
	}
}
