//go:build linux

package cli

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// of returns the lines of one kind.
func (r *auditRun) of(event string) (list []map[string]any) {
	for _, l := range r.lines {
		if l["event"] == event {
			list = append(list, l)
		}
	}
	return list
}

// check demands that a record is whole, with --hash both, and has all files that
// the run opened.
func (r *auditRun) check(t *testing.T, e *every, read []string) {
	t.Helper()
	last := r.lines[len(r.lines)-1]
	for _, key := range []string{"version", "arguments", "directory", "user", "uid", "host", "pid"} {
		if v := r.lines[0][key]; v == nil || v == "" {
			t.Errorf("the start of %q lacks %s", r.arguments(), key)
		}
	}
	if r.lines[0]["event"] != "start" || last["event"] != "end" || last["lines"] != json.Number(fmt.Sprint(len(r.lines))) || last["exit"] == nil {
		t.Errorf("%q: from %v to %v, of %d lines", r.arguments(), r.lines[0], last, len(r.lines))
	}
	named := map[string]bool{filepath.Join(e.dir, "audit"): true}
	after := map[any]map[string]any{}
	for _, l := range r.of("input-after") {
		after[l["path"]] = l
	}
	for _, in := range r.of("input") {
		real, _ := in["real"].(string)
		named[real] = true
		if in["path"] == nil || in["size"] == nil || in["sha256"] == nil && in["kind"] != "volume" {
			t.Errorf("%q: input %v", r.arguments(), in)
		}
		if in["kind"] != "file" {
			continue
		}
		if in["inode"] == nil || in["device"] == nil || in["mtime"] == nil {
			t.Errorf("%q: input %v", r.arguments(), in)
		}
		want, source := e.prints[real]
		if source && !strings.HasPrefix(want, in["sha256"].(string)) {
			t.Errorf("%q: input %v, want %s", r.arguments(), in, want)
		}
		if a := after[in["path"]]; a == nil || source && (a["changed"] != false || a["sha256"] != in["sha256"]) {
			t.Errorf("%q: input %v, later %v", r.arguments(), in, a)
		}
	}
	for _, out := range r.of("output") {
		real, _ := out["real"].(string)
		named[real] = true
		if out["path"] == nil || out["size"] == nil || out["complete"] != (out["kind"] != "stdout" || last["exit"] == json.Number("0") || last["exit"] == json.Number("3")) || out["sha256"] == nil && out["kind"] != "removed" {
			t.Errorf("%q: output %v", r.arguments(), out)
		}
	}
	for _, path := range read {
		st, err := os.Lstat(path)
		// Directories are listed, files without a name are for the moment.
		if err == nil && st.Mode().IsRegular() && !named[path] && !within(filepath.Join(e.dir, "tmp"), path) && !within(filepath.Join(e.dir, "lock"), path) {
			t.Errorf("%q: opened %s, which is not recorded", r.arguments(), path)
		}
	}
}

// checkOutputs demands that what is in a directory is recorded as it is, or was
// written to a standard output that was recorded.
func checkOutputs(t *testing.T, runs map[string]*auditRun, dir string) {
	t.Helper()
	sums := map[string]bool{}
	for _, r := range runs {
		for _, out := range r.of("output") {
			sums[fmt.Sprintf("%v %v %v", out["real"], out["size"], out["sha256"])] = true
		}
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		sum := fmt.Sprintf("%d %x", len(content), sha256.Sum256(content))
		if !sums[path+" "+sum] && !sums["<nil> "+sum] && len(content) > 0 {
			t.Errorf("%s is not recorded as it is: %s", path, sum)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
