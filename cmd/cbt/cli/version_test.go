package cli

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestBuiltFrom(t *testing.T) {
	info := &debug.BuildInfo{Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "0123456789abcdef0123"}, {Key: "vcs.time", Value: "2026-11-30T10:00:00Z"}, {Key: "vcs.modified", Value: "true"},
	}}
	if got := builtFrom(info).String(); !strings.HasPrefix(got, "cbt "+Version+" (commit 0123456789ab-dirty of 2026-11-30, go") {
		t.Errorf("of go build: %q", got)
	}
	if got := builtFrom(nil).String(); !strings.Contains(got, "(commit unknown of an unknown day, ") {
		t.Errorf("of nothing: %q", got)
	}
	commit, date = "abc", "2026-11-29"
	defer func() { commit, date = "", "" }()
	if got := builtFrom(info); got.Commit != "abc" || got.Date != "2026-11-29" {
		t.Errorf("of make: %+v", got)
	}
}
