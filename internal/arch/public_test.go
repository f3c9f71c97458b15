package arch

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// public lists what other modules may import: all but commands, programs, internal packages and those of tests.
func public(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, p := range list(t, "linux") {
		name := p.name()
		if !matches([]string{"cmd/...", "internal/...", "testdata/...", "scripts/..."}, name) && !matches(programs, name) && !slices.Contains(testOnly, p.ImportPath) {
			names = append(names, name)
		}
	}
	if len(names) < 7 {
		t.Fatalf("public packages: %q", names)
	}
	return names
}

// parse parses the Go files of a package whose names pass.
func parse(t *testing.T, fset *token.FileSet, name string, pass func(string) bool) []*ast.File {
	t.Helper()
	var parsed []*ast.File
	for _, file := range files(t) {
		if path.Dir(file) != name || !strings.HasSuffix(file, ".go") || !pass(file) {
			continue
		}
		src := read(t, file)
		if src == nil {
			continue
		}
		f, err := parser.ParseFile(fset, file, src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, f)
	}
	return parsed
}

// TestPublicPromisesNothingInternal: no exported signature, field, constant or variable, and no comment on
// one, names what is in an internal package, which users of the library can neither import nor look up.
func TestPublicPromisesNothingInternal(t *testing.T) {
	var internal []string
	for _, p := range list(t, "linux") {
		if strings.HasPrefix(p.name(), "internal/") {
			internal = append(internal, path.Base(p.name()))
		}
	}
	named := regexp.MustCompile(`\b(` + strings.Join(internal, "|") + `)\.[A-Z]\w*|\binternal/\w+`)
	for _, name := range public(t) {
		fset := token.NewFileSet()
		parsed := parse(t, fset, name, func(file string) bool { return !strings.HasSuffix(file, "_test.go") })
		p, err := doc.NewFromFiles(fset, parsed, module+name)
		if err != nil {
			t.Fatal(err)
		}
		look := func(text string, decl ast.Node) {
			if found := named.FindString(text); found != "" {
				t.Errorf("%s: a public comment names %s", fset.Position(decl.Pos()), found)
			}
			ast.Inspect(decl, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BlockStmt:
					return false
				case *ast.ValueSpec: // what a variable begins with is no promise, if its type says more
					return n.Type != nil || !isCall(n.Values)
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && slices.Contains(internal, x.Name) {
						t.Errorf("%s: the public API has %s.%s", fset.Position(n.Pos()), x.Name, n.Sel.Name)
					}
				case *ast.Comment:
					if found := named.FindString(n.Text); found != "" {
						t.Errorf("%s: a public comment names %s", fset.Position(n.Pos()), found)
					}
				}
				return true
			})
		}
		look(p.Doc, &ast.BadDecl{})
		for _, v := range slices.Concat(p.Consts, p.Vars) {
			look(v.Doc, v.Decl)
		}
		for _, f := range p.Funcs {
			look(f.Doc, f.Decl)
		}
		for _, typ := range p.Types {
			look(typ.Doc, typ.Decl)
			for _, v := range slices.Concat(typ.Consts, typ.Vars) {
				look(v.Doc, v.Decl)
			}
			for _, f := range slices.Concat(typ.Funcs, typ.Methods) {
				look(f.Doc, f.Decl)
			}
		}
	}
}

func isCall(values []ast.Expr) bool {
	return slices.ContainsFunc(values, func(e ast.Expr) bool { _, ok := e.(*ast.CallExpr); return ok })
}

// TestEveryPublicPackageHasAnExample: one that runs, which go doc shows and go test compares.
func TestEveryPublicPackageHasAnExample(t *testing.T) {
	for _, name := range public(t) {
		parsed := parse(t, token.NewFileSet(), name, func(file string) bool { return strings.HasSuffix(file, "_test.go") })
		runs := slices.ContainsFunc(parsed, func(f *ast.File) bool {
			return strings.HasSuffix(f.Name.Name, "_test") && slices.ContainsFunc(doc.Examples(f), func(e *doc.Example) bool { return e.Output != "" })
		})
		if !runs {
			t.Errorf("%s has no Example function with an output in a package %s_test", name, path.Base(name))
		}
	}
}
