package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// openers are the packages that may open, make and remove files in every way. All
// others go through internal/audit, which keeps the record of --audit.
var openers = []string{"internal/audit", "internal/infile", "internal/outfile", "internal/hostlvm", "internal/imagelock", "internal/dm", "internal/fuse", "sparse"}

// opens are the ways to open, make or remove files, and the files elsewhere that
// use one all the same.
var opens = map[string][]string{
	"os.Open":            nil,
	"os.ReadFile":        {"target_linux.go", "volume_host_linux.go"},                                      // of /proc and /sys
	"os.OpenFile":        {"target.go", "scratch.go", "mount.go", "mount_background.go", "mount_linux.go"}, // what is written in place, a log, /dev/null
	"os.OpenInRoot":      nil,
	"os.OpenRoot":        nil,
	"os.DirFS":           nil,
	"os.Create":          nil,
	"os.CreateTemp":      {"writer.go"}, // an index, in a file without a name
	"os.WriteFile":       nil,
	"os.Truncate":        nil,
	"os.Rename":          {"serve_listen.go"}, // sockets
	"os.Remove":          {"serve_listen.go", "writer.go"},
	"os.RemoveAll":       {"serve_listen.go"},
	"os.Link":            nil,
	"os.Symlink":         nil,
	"syscall.Open":       nil,
	"unix.Open":          nil,
	"unix.Openat":        nil,
	"unix.Openat2":       nil,
	"unix.Unlink":        nil,
	"unix.Rename":        nil,
	"unix.Renameat2":     nil,
	"outfile.Create":     nil,
	"outfile.CreateIn":   nil,
	"outfile.WriteFile":  nil,
	"hostlvm.OpenDirect": {"physical.go"}, // a second way to a device that was opened
	"infile.Open":        {"scratch.go"},  // to look what it is
}

// No command can leave a file out of the record of --audit.
func TestAllFilesAreRecorded(t *testing.T) {
	used := map[string]bool{}
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		rel, err := filepath.Rel(root(t), path)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(rel))
		if slices.Contains(openers, dir) || !strings.HasPrefix(dir, "cmd/") && !strings.HasPrefix(dir, "internal/") && !strings.HasPrefix(dir, "cbt") {
			return nil
		}
		for _, p := range append(slices.Clone(testOnly), "cbt/internal/arch", "cbt/internal/tally") {
			if dir == strings.TrimPrefix(p, "cbt/") || strings.HasPrefix("cbt/"+dir, p+"/") {
				return nil
			}
		}
		name := filepath.Base(path)
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := s.X.(*ast.Ident)
			if !ok {
				return true
			}
			what := pkg.Name + "." + s.Sel.Name
			who, limited := opens[what]
			if limited && !slices.Contains(who, name) {
				t.Errorf("%v: %s leaves no record: the methods of audit.Recorder and audit.Reading do", set.Position(n.Pos()), what)
			}
			used[what+" "+name] = true
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, who := range opens {
		for _, name := range who {
			if !used[what+" "+name] {
				t.Errorf("%s does not use %s", name, what)
			}
		}
	}
}
