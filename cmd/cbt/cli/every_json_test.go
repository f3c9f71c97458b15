//go:build linux

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// jsonRun is a shell script whose runs of cbt, which have --json, all do what they should, and what they
// print.
type jsonRun struct {
	script string
	out    string // object, objects, array, none; bytes: what has no other form
	keys   string // that the first object has
}

// everyJSON has runs for each command of the program: TestEveryCommandSpeaksJSON fails at one without. To add a
// command, add an entry. What scripts find is in every_table_test.go; "cbt" has --json already.
var everyJSON = map[string][]jsonRun{
	"": {{"cbt --help", "bytes", ""}},
	"info": {
		{"cbt info src/disk.qcow2@monday", "object", "filename format virtual-size snapshots point"},
		{"cbt info src/deltas/tue.cbt", "object", "format"}, {"cbt info src/plain.state", "object", "machine"},
		{"cbt info $pv", "object", "volume-groups"}, {"cbt info $pv lvm:mixed/snap1", "object", "point"},
	},
	"map": {{"cbt map src/disk.qcow2@monday", "array", "start length depth present zero data"}},
	"diff": {
		{"cbt diff src/chain-mid.qcow2 src/chain-top.qcow2", "array", "start length data zero"},
		{"cbt diff src/disk.qcow2@monday src/disk.qcow2@tuesday -o out/tue.cbt", "object", "delta id size payload read streams"},
		{"cbt diff --full src/disk.qcow2@monday -o -", "bytes", ""},
	},
	"backup": {
		{"cbt backup --name vm --dry-run src/disk.qcow2@monday out", "object", "dry-run new payload streams"},
		{"cbt backup src/disk.qcow2@monday out", "object", "file id new to bytes streams"},
		{"cbt backup src/disk.qcow2@monday out >/dev/null 2>&1; cbt backup src/disk.qcow2@monday out; cbt backup src/disk.qcow2@tuesday out", "objects", "file id new"},
	},
	"apply": {{"cbt restore src/deltas/mon.cbt out/d 2>/dev/null >out/r; cbt apply src/deltas/tue.cbt out/d", "object", "targets written zeroed checked unchecked read"},
		{"cbt restore src/deltas/mon.cbt out/d 2>/dev/null >out/r; cbt apply --dry-run src/deltas/tue.cbt out/d", "object", "dry-run targets written zeroed checked unchecked read"}},
	"restore": {
		{"cbt restore src/deltas/tue.cbt out/d", "object", "targets written zeroed same read"},
		{"cbt restore --dry-run src/deltas/tue.cbt out/d", "object", "dry-run targets written zeroed read"},
		{"cbt restore src/deltas/tue.cbt out/d --state out/s --target-format qcow2", "object", "targets state"},
	},
	"cat": {{"cbt cat src/disk.qcow2@monday", "bytes", ""}},
	"hash": {
		{"cbt hash --piece 1M src/disk.raw src/disk.qcow2@monday", "array", "image size offset length pieces sha256"},
		{"$real hash src/disk.raw >out/l; cbt hash --check out/l", "array", "name ok"},
	},
	"serve": {
		{"cbt serve src/disk.raw --socket out/s & while ! test -S out/s; do sleep 0.02; done; sleep 0.2; kill $!; wait $! || test $? = 143", "object", "name uri ref size read-only socket"},
		{"cbt serve src/disk.raw --run true", "none", ""},
	},
	"mount": {{"cbt mount src/disk.qcow2 tmp/m; cbt umount tmp/m >/dev/null", "object", "directory mounted"}},
	"umount": {
		{"cbt mount src/disk.qcow2 tmp/m >/dev/null; cbt umount tmp/m", "object", "directory mounted"},
	},
	"verify": {
		{"cbt verify src/deltas", "array", "delta id size ok"},
		{"cbt verify src/deltas/mon.cbt", "array", "delta id size ok"},
		{"cbt verify --subset 1/2 src/deltas", "array", "delta ok"},
		{"cbt verify src/deltas/mon.cbt --against src/disk.qcow2@monday", "array", "delta ok"},
		{"cbt verify --salvage src/deltas/tue.cbt --salvage-to out/s", "object", "delta ok header streams salvaged lost"},
	},
	"merge": {{"cbt merge src/deltas/tue.cbt src/deltas/mon.cbt -o out/both.cbt", "object", "delta id size payload read streams"}},
	"prune": {
		{"cbt prune src/deltas --keep-last 1 --dry-run", "object", "dry-run groups"},
		{"cp in/*.cbt out; cbt prune out --keep-last 1 --rebase-every 0", "object", "dry-run groups"},
	},
	"log":   {{"cbt log src/deltas", "array", "file id size payload instant consistency full streams"}},
	"check": {{"cbt check src/disk.qcow2", "object", "faults corruptions leaks"}},
	"ram":   {{"! cbt ram", "none", ""}},
	"ram dump": {
		{"cbt ram dump src/plain.state -o out/core", "object", "file files bytes"},
		{"cbt ram dump --format blocks src/plain.state -o out/blocks", "object", "file files bytes"},
	},
	"ram diff":                  {{"cbt ram diff src/disk.qcow2@monday src/disk.qcow2@tuesday", "object", "pages blocks"}},
	"ram find":                  {{"cbt ram find src/plain.state --text QEMU", "array", "block offset"}},
	"lvm":                       {{"! cbt lvm", "none", ""}},
	"lvm release-metadata-snap": {{"! cbt lvm release-metadata-snap nogroup/pool", "none", ""}},
	"completion":                {{"cbt completion bash", "bytes", ""}},
	"man":                       {{"cbt man out/man", "object", "file files bytes"}},
	"version":                   {{"cbt version", "object", "version go os arch"}},
	"help":                      {{"cbt help info", "bytes", ""}},
}

// oddKeys are not in kebab case, and why.
var oddKeys = map[string]string{
	"no_longer_needed": "from before there was a rule",
}

// Every command that is registered prints JSON as docs/cli.md has it, and on stderr nothing but objects, also
// when it fails, and when all is asked for that goes there.
func TestEveryCommandSpeaksJSON(t *testing.T) {
	e := &jsonScene{dir: everySources(t)}
	b, err := os.ReadFile("../../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	e.docs = string(b)
	wrapper := "#!/bin/sh\nexec " + filepath.Join(e.dir, "bin/real") + " --json \"$@\"\n"
	if err := os.WriteFile(filepath.Join(e.dir, "bin/cbt"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	for name := range everyJSON {
		if c, rest, err := newRootCommand(&app{}).Find(strings.Fields(name)); err != nil || len(rest) > 0 || c.CommandPath() != strings.TrimSpace("cbt "+name) {
			if name != "help" {
				t.Errorf("everyJSON has %q, which is no command", name)
			}
		}
	}
	for _, name := range everyName() {
		t.Run(name, func(t *testing.T) {
			if len(everyJSON[name]) == 0 {
				t.Fatalf("everyJSON in every_json_test.go has no run of `cbt %s`", name)
			}
			for _, run := range everyJSON[name] {
				e.run(t, name, run)
				all := run
				all.script = command.ReplaceAllString(all.script, "${1}cbt --progress -v ")
				e.run(t, name, all)
			}
			e.run(t, name, jsonRun{"! cbt " + name + " --no-such-flag", "none", ""})
		})
	}
}

// everyName has the names of all commands, without the program's.
func everyName() (names []string) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		names = append(names, strings.TrimPrefix(strings.TrimPrefix(c.CommandPath(), "cbt"), " "))
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	root := newRootCommand(&app{})
	root.InitDefaultHelpCmd()
	walk(root)
	return names
}

type jsonScene struct{ dir, docs string }

func (e *jsonScene) run(t *testing.T, name string, run jsonRun) {
	t.Helper()
	if strings.Contains(run.script, "cbt mount") {
		if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
			return
		}
	}
	at := func(name string) string { return filepath.Join(e.dir, name) }
	for _, dir := range []string{"out", "tmp", "tmp/m"} {
		if dir != "tmp/m" {
			if err := os.RemoveAll(at(dir)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(at(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var out, errOut bytes.Buffer
	sh := exec.Command("sh", "-ec", run.script)
	sh.Dir, sh.Stdout, sh.Stderr = e.dir, &out, &errOut
	sh.Env = append(os.Environ(), "PATH="+at("bin")+":"+os.Getenv("PATH"), "TMPDIR="+at("tmp"), "CBT_LOCK_DIR="+at("tmp"),
		"real="+at("bin/real"), "pv=--pv src/0.img --pv src/1.img --pv src/2.img")
	if err := sh.Run(); err != nil {
		t.Errorf("%s: %v\n%s", run.script, err, errOut.Bytes())
		return
	}
	for line := range strings.Lines(errOut.String()) {
		if err := stderrLine(line); err != nil {
			t.Errorf("%s: on stderr %q: %v", run.script, line, err)
		}
	}
	if strings.HasPrefix(run.script, "! ") && errOut.Len() == 0 {
		t.Errorf("%s: nothing on stderr", run.script)
	}
	if run.out == "bytes" {
		return
	}
	var values []any
	for d := json.NewDecoder(&out); ; {
		var v any
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s: on stdout: %v", run.script, err)
		}
		values = append(values, v)
		e.keys(t, run.script, v)
	}
	first, want := any(nil), 1
	if len(values) > 0 {
		first = values[0]
	}
	if list, ok := first.([]any); ok && run.out == "array" && len(list) > 0 {
		first = list[0]
	} else if ok || run.out == "array" {
		t.Fatalf("%s: prints %v, not an array with something in it", run.script, first)
	}
	switch {
	case run.out == "none":
		want = 0
	case run.out == "objects":
		want = len(values)
	}
	if len(values) != want || want > 0 && first == nil {
		t.Fatalf("%s: prints %d values, not %d (%s)", run.script, len(values), want, run.out)
	}
	for _, key := range strings.Fields(run.keys) {
		if object, _ := first.(map[string]any); object[key] == nil {
			t.Errorf("%s: has no %s: %v", run.script, key, first)
		}
	}
}

// stderrLine is the rule for what --json leaves on stderr.
func stderrLine(line string) error {
	var v map[string]any
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		return err
	}
	text := func(key string) bool { s, ok := v[key].(string); return ok && s != "" }
	number := func(key string) bool { _, ok := v[key].(float64); return ok }
	switch {
	case text("warning"), text("note"), text("debug"):
		if len(v) == 1 {
			return nil
		}
	case text("error") && number("exit"), text("progress") && number("done") && number("total"):
		return nil
	}
	return errors.New("is none of the objects that docs/cli.md has")
}

var command = regexp.MustCompile(`(^|[ ;])cbt `)

var kebab = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// keys demands that all keys of v are in the usual style, and documented.
func (e *jsonScene) keys(t *testing.T, script string, v any) {
	t.Helper()
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			e.keys(t, script, x)
		}
	case map[string]any:
		for key, x := range v {
			if !kebab.MatchString(key) && oddKeys[key] == "" {
				t.Errorf("%s: key %q is not in kebab case", script, key)
			}
			if !strings.Contains(e.docs, "`"+key+"`") && !strings.Contains(e.docs, `"`+key+`"`) {
				t.Errorf("%s: docs/cli.md does not have the key %q", script, key)
			}
			e.keys(t, script, x)
		}
	}
}
