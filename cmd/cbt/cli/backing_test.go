package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestResolveName(t *testing.T) {
	for _, c := range []struct{ image, role, name, want string }{
		{"disk", backingFile, "base", "base"},
		{"vm/disk", backingFile, "base", "vm/base"},
		{"/vm/disk", backingFile, "sub/../base", "/vm/sub/../base"}, // "sub" may be a link
		{"vm/disk", backingFile, "/srv/base", "/srv/base"},
		{"vm/disk", backingFile, "./a:b", "vm/./a:b"},
		{"vm/disk", backingFile, "sub/a:b", "vm/sub/a:b"},
		{"vm/disk", backingFile, "file:sub/base", "sub/base"}, // to the working directory
		{"vm/disk", backingFile, "file:///srv/base", "///srv/base"},
		{"vm/disk", dataFile, "raw data", "vm/raw data"},
	} {
		if got, err := resolveName(c.image, c.role, c.name); err != nil || got != c.want {
			t.Errorf("resolveName(%q, %s, %q) = %q, %v; want %q", c.image, c.role, c.name, got, err, c.want)
		}
	}
	for _, c := range []struct{ role, name, want string }{
		{backingFile, "", "no file name"},
		{backingFile, "a\x00b", "no file name"},
		{backingFile, "file:", "protocol"},
		{backingFile, "nbd://host/x", "protocol"},
		{backingFile, "nbd:unix:/run/x", "protocol"},
		{backingFile, "ssh://host/x", "protocol"},
		{backingFile, "disk:1", "protocol"},
		{backingFile, ":x", "protocol"},
		{backingFile, "fat:rw:/etc", "protocol"},
		{backingFile, `json:{"driver":"raw"}`, "json:"},
		{dataFile, `json:{"driver":"raw"}`, "json:"},
		{dataFile, "file:data", "protocol"},
		{dataFile, "", "no file name"},
	} {
		if got, err := resolveName("vm/disk", c.role, c.name); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("resolveName(%s, %q) = %q, %v; want an error with %q", c.role, c.name, got, err, c.want)
		}
	}
}

func TestFindData(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("vm", 0o755); err != nil {
		t.Fatal(err)
	}
	touch(t, "vm/beside", "here", "vm/both", "both")
	for name, want := range map[string]string{"beside": "vm/beside", "here": "here", "neither": "vm/neither"} {
		if got, err := findData("vm/"+name, name); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if got, err := findData("vm/both", "both"); err == nil {
		t.Errorf("two files of the name: %q", got)
	}
	if got, err := findData("./both", "both"); err != nil {
		t.Errorf("one file by two names: %q, %v", got, err)
	}
}

func TestPolicy(t *testing.T) {
	p := policy{own: []string{"/vm"}, allow: []string{"/srv/images"}}
	for path, want := range map[string]bool{
		"/vm/base": true, "/vm/a/b": true, "/srv/images/x": true,
		"/vm2/base": false, "/etc/passwd": false, "/srv/images2/x": false, "/srv/images": false, "/srv": false,
		"(unreachable)/vm/base": false, "vm/base": false, "": false,
	} {
		if got := p.permits(path); got != want {
			t.Errorf("permits(%q) = %t", path, got)
		}
	}
	// An image in the root directory does not make all files its neighbours.
	if top := (policy{own: []string{"/"}}); !top.permits("/base") || top.permits("/etc/passwd") {
		t.Error("an image in / has the wrong neighbours")
	}
	if !(policy{allow: []string{"/"}}).permits("/etc/passwd") {
		t.Error("--allow / does not allow all")
	}
}

func TestAllowDirs(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, d := range []string{"a", "b"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("b", "link"); err != nil {
		t.Fatal(err)
	}
	dirs, err := allowDirs([]string{"link", "a/../a"}, strings.Join([]string{"", "/nonexistent", "a", ""}, string(filepath.ListSeparator)))
	want := []string{filepath.Join(dir, "b"), filepath.Join(dir, "a"), filepath.Join(dir, "a")}
	if err != nil || strings.Join(dirs, " ") != strings.Join(want, " ") {
		t.Errorf("allowDirs = %q, %v; want %q", dirs, err, want)
	}
	if dirs, err := allowDirs([]string{"/nonexistent"}, ""); err == nil {
		t.Errorf("--allow /nonexistent gave %q", dirs)
	}
}

func TestOwnDirs(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, d := range []string{"real", "named"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	touch(t, "real/disk")
	if err := os.Symlink("../real/disk", "named/disk"); err != nil {
		t.Fatal(err)
	}
	var o opener
	f, err := openFile("named/disk", &o.reads, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := []string{filepath.Join(dir, "real"), filepath.Join(dir, "named")}
	if got := ownDirs(f); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("ownDirs = %q, want %q", got, want)
	}
	f.Info.Block = true
	if got := ownDirs(f); len(got) != 0 {
		t.Errorf("a device owns %q", got)
	}
}
