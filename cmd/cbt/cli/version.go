package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// Version is the version of the program; what a delta says of its format is
// another number.
const Version = "0.1.0"

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:         "version",
		Short:       "print the version",
		Long:        "version prints the version of cbt and the Go release and platform it was built with.",
		Example:     "  cbt version",
		Annotations: exits(exitDone, exitFailed, exitUsage),
		Args:        wantArgs(),
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return writeJSON(a.Stdout, map[string]string{
					"version": Version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH,
				})
			}
			_, err := fmt.Fprintf(a.Stdout, "cbt %s (%s, %s/%s)\n", Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
