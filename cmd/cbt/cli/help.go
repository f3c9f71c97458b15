package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// helpText is cobra's, followed by the exit status.
func helpText(c *cobra.Command) string {
	long := c.Long
	if long == "" {
		long = c.Short
	}
	return strings.TrimSpace(long) + "\n\n" + c.UsageString() + "\nEXIT STATUS\n" + c.Annotations["exit"]
}

var exitTexts = map[int]string{
	exitDone:      "done",
	exitFailed:    "failed: the reason is on stderr",
	exitUsage:     "wrong usage: another command line would do",
	exitFindings:  "findings: damage, faults or differences",
	exitWrongBase: "base or parent missing or wrong",
	exitBusy:      "busy: somebody else uses the image, try later",
}

// exits is the annotation that help texts and manual pages turn into their
// EXIT STATUS section. Signals are added to every command.
func exits(codes ...int) map[string]string {
	var b strings.Builder
	for _, code := range codes {
		fmt.Fprintf(&b, "  %-5d  %s\n", code, exitTexts[code])
	}
	b.WriteString("  128+N  ended by signal N\n")
	return map[string]string{"exit": b.String()}
}

// wantArgs checks the number of arguments by the names they have in the help:
// "OLD", "NEW" wants two; one name that ends in "..." stands for any number
// from one.
func wantArgs(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		list := strings.Join(names, " ")
		many := strings.Contains(list, "...")
		switch {
		case len(args) < len(names):
			return usageErrorf("%s: %s is missing: usage is `%s %s`", c.Name(), names[len(args)], c.CommandPath(), list)
		case len(args) > len(names) && !many && len(names) == 0:
			return usageErrorf("%s: takes no arguments, got %s", c.Name(), printable(args[0]))
		case len(args) > len(names) && !many:
			return usageErrorf("%s: one argument too many: %s: usage is `%s %s`%s", c.Name(), printable(args[len(names)]), c.CommandPath(), list, outputHint(c, args[len(names)]))
		}
		return nil
	}
}

func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "help [command]",
		Short:       "show help for a command",
		Example:     "  cbt help info",
		Annotations: exits(exitDone, exitFailed, exitUsage),
		RunE: func(c *cobra.Command, args []string) error {
			cmd, rest, err := c.Root().Find(args)
			switch {
			case err != nil || len(rest) > 0 && cmd == c.Root():
				return unknownCommand(c.Root(), args)
			case len(rest) > 0 && cmd.HasSubCommands():
				return unknownCommand(cmd, rest)
			case len(rest) > 0:
				return usageErrorf("help: one argument too many: %s: usage is `cbt help %s`", printable(rest[0]), strings.TrimPrefix(cmd.CommandPath(), "cbt "))
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}
