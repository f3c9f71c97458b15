//go:build linux

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// noRoutes are the commands that read no deltas, or none but those that are named, and why.
var noRoutes = map[string]string{
	"": "has no argument", "check": "reads images", "umount": "reads no delta", "ram": "is none", "lvm": "is none", "lvm release-metadata-snap": "volumes of this host",
	"completion": "prints a script", "man": "prints pages", "version": "prints a line", "help": "prints help",
}

// Every command that reads deltas is in the stories of two routes to a point, of which one is damaged.
func TestEveryCommandTakesRoutes(t *testing.T) {
	files, err := filepath.Glob("testdata/script/routes*.txtar")
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	var stories strings.Builder
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		stories.Write(b)
	}
	for _, name := range everyName() {
		used := strings.Contains(stories.String(), "cbt "+name+" ")
		if _, exempt := noRoutes[name]; !used && !exempt {
			t.Errorf("testdata/script/routes*.txtar do not run `cbt %s`", name)
		}
	}
}
