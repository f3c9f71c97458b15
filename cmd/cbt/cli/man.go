package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	"cbt/internal/fail"
	"cbt/internal/outfile"
)

// manDate is that of the version, so that the same program writes the same
// pages on every day.
var manDate = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

func newManCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "write the manual pages into a directory",
		Long: `man writes one manual page for each command, cbt.1, cbt-info.1, cbt-ram-dump.1 and so
on, into a directory, which is made if it is missing. Pages that are there are replaced.`,
		Example: `  cbt man ./man
  man ./man/cbt-info.1`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode),
		Args:        wantArgs("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			pages := allCommands(c.Root())
			var size int64
			for _, c := range pages {
				n, err := a.writeManPage(args[0], c)
				if err != nil {
					return err
				}
				size += n
			}
			if err := outfile.SyncDir(args[0]); err != nil {
				return err
			}
			return a.result(writtenFiles{args[0], len(pages), size})
		},
	}
}

// allCommands are c and all below it that the help shows, each before those below it.
func allCommands(c *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			list = append(list, allCommands(sub)...)
		}
	}
	return list
}

func (a *app) writeManPage(dir string, c *cobra.Command) (size int64, err error) {
	page, err := manPage(c)
	if err != nil {
		return 0, err
	}
	name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
	f, err := a.audit.Create(filepath.Join(dir, name), true)
	if err != nil {
		return 0, err
	}
	defer f.Abort()
	if _, err := f.Write(page); err != nil {
		return 0, err
	}
	if err := f.Chmod(0o644); err != nil { // pages are for all
		return 0, err
	}
	return int64(len(page)), f.Commit()
}

// manPage is cobra's page with options as people write them, and the exit status before
// its last section.
func manPage(c *cobra.Command) ([]byte, error) {
	var b bytes.Buffer
	header := &doc.GenManHeader{Section: "1", Date: &manDate, Source: "cbt " + Version, Manual: "cbt manual"}
	c.DisableAutoGenTag = true
	if err := doc.GenMan(c, header, &b); err != nil {
		return nil, err
	}
	page := manSection(b.String(), ".SH OPTIONS\n", manFlags(c.NonInheritedFlags()))
	page = manSection(page, ".SH OPTIONS INHERITED FROM PARENT COMMANDS\n", manFlags(c.InheritedFlags()))
	status := fmt.Sprintf(".SH EXIT STATUS\n.EX\n%s.EE\n", c.Annotations["exit"])
	page, rest, found := strings.Cut(page, ".SH SEE ALSO")
	if found {
		rest = ".SH SEE ALSO" + rest
	}
	return []byte(strings.TrimRight(page, "\n") + "\n" + status + rest), nil
}

// manSection puts text in the place of a section's, if there is one.
func manSection(page, head, text string) string {
	before, rest, found := strings.Cut(page, head)
	if !found {
		return page
	}
	_, after, found := strings.Cut(rest, "\n.SH ")
	if found {
		after = ".SH " + after
	}
	return before + head + text + after
}

// manFlags are flags as a page has them: with the name of what each takes.
func manFlags(flags *pflag.FlagSet) string {
	var b strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		takes, usage := pflag.UnquoteUsage(f)
		b.WriteString(".TP\n")
		if f.Shorthand != "" {
			fmt.Fprintf(&b, "\\fB\\-%s\\fP, ", f.Shorthand)
		}
		fmt.Fprintf(&b, "\\fB\\-\\-%s\\fP", manText(f.Name))
		if takes != "" {
			fmt.Fprintf(&b, " \\fI%s\\fP", manText(takes))
		}
		b.WriteString("\n\\&" + manText(usage))
		switch f.DefValue {
		case "", "0", "false", "[]", "0s":
		default:
			fmt.Fprintf(&b, " (default %s)", manText(strings.Trim(f.DefValue, "[]")))
		}
		b.WriteString("\n")
	})
	return b.String()
}

// manText is plain text in the language of pages.
func manText(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ").Replace(s)
}
