package cli

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
)

// Version is the version of the program; what a delta says of its format is
// another number.
const Version = "0.1.0"

// The commit that the program was built from and its day. The Makefile sets them; without
// it go build knows them, where it was allowed to ask git.
var commit, date string

// built is what version prints.
type built struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"` // ends in -dirty if the tree was another one
	Date    string `json:"date,omitempty"`   // of the commit
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func builtFrom(info *debug.BuildInfo) built {
	b := built{Version: Version, Commit: commit, Date: date, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if info == nil || b.Commit != "" {
		return b
	}
	vcs := map[string]string{}
	for _, s := range info.Settings {
		vcs[s.Key] = s.Value
	}
	b.Commit = vcs["vcs.revision"][:min(12, len(vcs["vcs.revision"]))]
	if b.Commit != "" && vcs["vcs.modified"] == "true" {
		b.Commit += "-dirty"
	}
	b.Date, _, _ = strings.Cut(vcs["vcs.time"], "T")
	return b
}

func (b built) String() string {
	return fmt.Sprintf("cbt %s (commit %s of %s, %s, %s/%s)\n",
		b.Version, cmp.Or(b.Commit, "unknown"), cmp.Or(b.Date, "an unknown day"), b.Go, b.OS, b.Arch)
}

// printVersion is version, and --version.
func (a *app) printVersion() error {
	info, _ := debug.ReadBuildInfo()
	b := builtFrom(info)
	if a.json {
		return writeJSON(a.Stdout, b)
	}
	_, err := io.WriteString(a.Stdout, b.String())
	return err
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Long: `version prints the version of cbt, the commit it was built from and the day of that,
and the Go release and platform it was built with; --version prints the same.`,
		Example:     "  cbt version",
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode),
		Args:        wantArgs(),
		RunE: func(*cobra.Command, []string) error {
			return a.printVersion()
		},
	}
}
