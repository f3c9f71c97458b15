package arch

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"cbt/internal/testtool"
)

// files are the tree's: what git tracks or, where there is no git, what lies there.
func files(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z")
	cmd.Dir = root(t)
	if out, err := cmd.Output(); err == nil {
		return strings.Split(strings.Trim(string(out), "\x00"), "\x00")
	}
	var names []string
	err := fs.WalkDir(os.DirFS(root(t)), ".", func(name string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && (name == "bin" || name == ".git") {
			return fs.SkipDir
		}
		if err == nil && d.Type().IsRegular() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// read is a file's content, nil if it was deleted and git was not yet told.
func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return b
}

func TestSizes(t *testing.T) {
	for _, name := range files(t) {
		b := read(t, name)
		lines := bytes.Count(b, []byte("\n"))
		if len(b) > maxFile {
			t.Errorf("%s has %d bytes, limit %d", name, len(b), maxFile)
		}
		if strings.HasSuffix(name, ".go") && lines > maxGoLines {
			t.Errorf("%s has %d lines, limit %d", name, lines, maxGoLines)
		}
		if name == "Makefile" && lines > maxMakefileLines {
			t.Errorf("%s has %d lines, limit %d", name, lines, maxMakefileLines)
		}
	}
}

func TestOnePackageDoc(t *testing.T) {
	docs := map[string][]string{}
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.Contains(name, "testdata/") {
			continue
		}
		src := read(t, name)
		if src == nil {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Error(err)
			continue
		}
		dir := path.Dir(name)
		if docs[dir] == nil {
			docs[dir] = []string{}
		}
		if text := packageDoc(f); text != "" {
			docs[dir] = append(docs[dir], name)
			if !startsRight(text, f.Name.Name, path.Base(dir)) {
				t.Errorf("%s: the package doc starts with neither its name nor its command's: %.40q", name, text)
			}
		}
	}
	for dir, with := range docs {
		if len(with) != 1 {
			t.Errorf("%s has %d package docs: %q", dir, len(with), with)
		}
	}
}

// startsRight knows the two usages: "Package x ...", and for programs "Command x ..." or "X ...".
func startsRight(text, pkg, dir string) bool {
	if pkg != "main" {
		return strings.HasPrefix(text, "Package "+pkg+" ")
	}
	return strings.HasPrefix(text, "Command "+dir+" ") || strings.HasPrefix(strings.ToLower(text), dir+" ")
}

func packageDoc(f *ast.File) string {
	if f.Doc == nil {
		return ""
	}
	return f.Doc.Text()
}

func TestNoReplace(t *testing.T) {
	if regexp.MustCompile(`(?m)^\s*replace\b`).Match(read(t, "go.mod")) {
		t.Error("go.mod has a replace directive")
	}
}

// The program is one static file, without what only a debugger wants, and the same each time.
func TestStatic(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "cbt")
	build := func() {
		t.Helper()
		cmd := exec.Command(testtool.Need(t, "make"), "-s", "build", "BIN="+bin)
		cmd.Dir = root(t)
		cmd.Env = append(os.Environ(), "GOOS=linux")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	build()
	first, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(bin); err != nil {
		t.Fatal(err)
	}
	build()
	if again, err := os.ReadFile(bin); err != nil || !bytes.Equal(again, first) {
		t.Errorf("built twice it is not the same (%v)", err)
	}
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libs, _ := f.ImportedLibraries(); len(libs) > 0 || f.Section(".interp") != nil {
		t.Errorf("needs %q and an interpreter: %v", libs, f.Section(".interp") != nil)
	}
	if n := len(first); n > maxBinary {
		t.Errorf("has %d bytes, limit %d: is something linked that brings all methods with it (text/template)?", n, maxBinary)
	}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil || f.Section(".zdebug_info") != nil {
		t.Error("is not stripped")
	}
	info, err := buildinfo.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if settings["CGO_ENABLED"] != "0" || settings["-trimpath"] != "true" || info.GoVersion != runtime.Version() {
		t.Errorf("built as %v with %s", settings, info.GoVersion)
	}
}

// Every link in the documents to a file of the tree leads somewhere.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#: ]+)(#[^)]*)?\)`)
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".md") {
			continue
		}
		for _, m := range link.FindAllSubmatch(read(t, name), -1) {
			to := filepath.Join(root(t), path.Dir(name), string(m[1]))
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
		}
	}
}
