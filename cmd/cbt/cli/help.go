package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/text"
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
	fail.Done:          "done",
	fail.Failed:        "failed: the reason is on stderr",
	fail.UsageCode:     "wrong usage: another command line would do",
	fail.FindingsCode:  "findings: damage, faults or differences",
	fail.WrongBaseCode: "base or parent missing or wrong",
	fail.BusyCode:      "busy: somebody else uses the image, try later",
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
			return fail.Usage("%s: %s is missing: usage is `%s %s`", c.Name(), names[len(args)], c.CommandPath(), list)
		case len(args) > len(names) && !many && len(names) == 0:
			return fail.Usage("%s: takes no arguments, got %s", c.Name(), text.Printable(args[0]))
		case len(args) > len(names) && !many:
			return fail.Usage("%s: one argument too many: %s: usage is `%s %s`%s", c.Name(), text.Printable(args[len(names)]), c.CommandPath(), list, outputHint(c, args[len(names)]))
		}
		return nil
	}
}

func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "help [command]",
		Short:       "show help for a command",
		Example:     "  cbt help info",
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode),
		RunE: func(c *cobra.Command, args []string) error {
			cmd, rest, err := c.Root().Find(args)
			switch {
			case err != nil || len(rest) > 0 && cmd == c.Root():
				return unknownCommand(c.Root(), args)
			case len(rest) > 0 && cmd.HasSubCommands():
				return unknownCommand(cmd, rest)
			case len(rest) > 0:
				return fail.Usage("help: one argument too many: %s: usage is `cbt help %s`", text.Printable(rest[0]), strings.TrimPrefix(cmd.CommandPath(), "cbt "))
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}
