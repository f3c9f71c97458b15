package arch

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"cbt/internal/testtool"
)

// TestModuleIsTidy fails at a go.mod that go mod tidy would change.
func TestModuleIsTidy(t *testing.T) {
	cmd := exec.Command("go", "mod", "tidy", "-diff")
	cmd.Dir = root(t)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	switch {
	case out.Len() > 0:
		t.Errorf("go mod tidy would change this:\n%s", out.Bytes())
	case err != nil: // the modules of dependencies' tests are not at hand
		testtool.Missing(t, "go mod tidy -diff: "+err.Error()+": "+errOut.String())
	}
}

// TestDirectImportsAreNotIndirect needs no network: what the program imports itself is not marked as
// if only others did.
func TestDirectImportsAreNotIndirect(t *testing.T) {
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	direct := 0
	for _, p := range list(t, "linux") {
		for _, path := range append(p.Imports, p.TestImports...) {
			for _, r := range mod.Require {
				if path != r.Path && !strings.HasPrefix(path, r.Path+"/") {
					continue
				}
				direct++
				if r.Indirect {
					t.Errorf("%s imports %s, which go.mod marks as indirect", p.name(), path)
				}
			}
		}
	}
	if direct == 0 {
		t.Error("nothing outside of the module is imported: this test sees nothing")
	}
}

// TestNoLogs fails at what a run left behind and somebody committed.
func TestNoLogs(t *testing.T) {
	for _, name := range files(t) {
		if strings.HasSuffix(name, ".log") {
			t.Errorf("%s is the log of a run", name)
		}
	}
}
