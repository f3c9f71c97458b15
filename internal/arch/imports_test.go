package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "cbt/"

// A pkg is what go list says of a package.
type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
	CgoFiles     []string
}

// name is the path below the module.
func (p pkg) name() string { return strings.TrimPrefix(p.ImportPath, module) }

func TestImportsPointDown(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		for _, p := range list(t, goos) {
			place := layer(p.name())
			program := matches(programs, p.name())
			if place < 0 && !program {
				t.Errorf("%s has no layer in internal/arch/table_test.go", p.name())
				continue
			}
			for _, path := range p.Imports {
				to, ours := strings.CutPrefix(path, module)
				switch {
				case program && ours && strings.HasPrefix(to, "cmd/"):
					t.Errorf("%s: %s imports the command %s", goos, p.name(), to)
				case program || !ours:
				case layer(to) < 0 || layer(to) >= place:
					t.Errorf("%s: %s imports %s, which is not below it", goos, p.name(), to)
				}
			}
		}
	}
}

// Tests may use the test packages besides, but not what is beside or above: a parser's test that needs
// another parser belongs into fuzz.
func TestTestImportsPointDown(t *testing.T) {
	for _, p := range list(t, "linux") {
		for _, path := range append(p.TestImports, p.XTestImports...) {
			to, ours := strings.CutPrefix(path, module)
			if !ours || path == p.ImportPath || slices.Contains(testOnly, path) || matches(programs, p.name()) {
				continue
			}
			if layer(to) < 0 || layer(to) >= layer(p.name()) {
				t.Errorf("a test of %s imports %s, which is not below it", p.name(), to)
			}
		}
	}
}

func TestWhoMayImport(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		for _, p := range list(t, goos) {
			if matches(programs, p.name()) {
				continue
			}
			for _, path := range p.Imports {
				if slices.Contains(testOnly, path) && !slices.Contains(testOnly, p.ImportPath) {
					t.Errorf("%s: %s imports %s outside of tests", goos, p.name(), path)
				}
				if path == "os" && matches(pathless, p.name()) {
					t.Errorf("%s: %s imports os", goos, p.name())
				}
				if who, limited := importers(path); limited && !matches(who, p.name()) {
					t.Errorf("%s: %s imports %s, which only %q may", goos, p.name(), path, who)
				}
			}
		}
	}
}

func TestNoCgo(t *testing.T) {
	for _, p := range list(t, "linux") {
		if len(p.CgoFiles) > 0 || slices.Contains(p.Imports, "C") {
			t.Errorf("%s uses cgo: %q", p.name(), p.CgoFiles)
		}
	}
}

func TestTableNamesWhatExists(t *testing.T) {
	var names []string
	for _, p := range list(t, "linux") {
		names = append(names, p.name())
	}
	for _, row := range layers {
		for _, entry := range row {
			if !strings.HasSuffix(entry, "/...") && !slices.Contains(names, entry) {
				t.Errorf("internal/arch/table_test.go names %s, and there is no such package", entry)
			}
		}
	}
	if layer("cbt") != layer("qcow2") || layer("qcow2") != layer("lvm/thin") || layer("sparse") >= layer("cbt") {
		t.Error("the layers of cbt, qcow2, lvm/thin and sparse are out of order")
	}
}

// importers says which packages may import path, if that is limited. What has a dot in its first element
// comes from elsewhere and needs a line.
func importers(path string) (who []string, limited bool) {
	for pattern, who := range only {
		if matches([]string{pattern}, path) {
			return who, true
		}
	}
	first, _, _ := strings.Cut(path, "/")
	return nil, strings.Contains(first, ".")
}

func layer(name string) int {
	return slices.IndexFunc(layers, func(row []string) bool { return matches(row, name) })
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		base, below := strings.CutSuffix(p, "/...")
		return name == base || below && strings.HasPrefix(name, base+"/")
	})
}

var listed = map[string][]pkg{}

// list is go list for one operating system.
func list(t *testing.T, goos string) []pkg {
	t.Helper()
	if listed[goos] != nil {
		return listed[goos]
	}
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports,CgoFiles", "./...")
	cmd.Dir, cmd.Stderr = root(t), os.Stderr
	// With cgo allowed, a file that uses it would be seen.
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 5 {
		t.Fatalf("go list found %d packages", len(all))
	}
	listed[goos] = all
	return all
}

// root is the directory of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}
