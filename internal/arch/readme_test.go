package arch

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestREADMELibrary builds the program of README's section "As a library" in a module of its own, with the
// go.mod that stands there, and runs it. Its functions are those of the example of package qcow2.
func TestREADMELibrary(t *testing.T) {
	_, section, _ := strings.Cut(string(read(t, "README.md")), "\n## As a library\n")
	section, _, _ = strings.Cut(section, "\n## ")
	block := func(begin string) string {
		_, text, _ := strings.Cut(section, "```"+begin)
		text, _, ok := strings.Cut(text, "```")
		if !ok {
			t.Fatalf("no block that begins with %q", begin)
		}
		return text
	}
	program := block("go\n")
	mod := "module" + block("\nmodule")

	functions := program[strings.Index(program, "// openFile"):strings.Index(program, "func main()")]
	if !strings.Contains(string(read(t, "qcow2/example_test.go")), functions) {
		t.Error("qcow2/example_test.go does not have the functions of README's program")
	}

	dir := t.TempDir()
	if err := os.Symlink(root(t), filepath.Join(dir, "cbt")); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"changes/main.go": []byte(program), "changes/go.mod": []byte(mod),
		"changes/go.sum": read(t, "go.sum"), // as go mod tidy writes it, who may ask the network
		"demo.qcow2":     unpack(t, "testdata/demo.qcow2.gz"),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) string {
		cmd := exec.Command(name, args...)
		cmd.Dir = filepath.Join(dir, "changes")
		cmd.Env = append(os.Environ(), "PWD="+cmd.Dir, "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v: %s", name, args, err, out)
		}
		return string(out)
	}
	run("go", "build", "-o", "changes", ".")
	if out := run("./changes", "../demo.qcow2"); !strings.HasPrefix(out, "0 65536 data\n262144 65536 data\n") || strings.Count(out, "\n") != 7 {
		t.Errorf("it printed\n%s", out)
	}
}

func unpack(t *testing.T, name string) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(read(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
