package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/text"
)

// near are those of the words that somebody may have meant who wrote word: with the
// fewest letters missing, too many, wrong or swapped. Few of a short word may be,
// else everything would be near it.
func near(word string, words []string) (list []string) {
	least := 1 + len(word)/5
	if len(word) < 3 {
		least = 0
	}
	for _, w := range words {
		d := edits(word, w)
		if len(word) >= 3 && strings.HasPrefix(w, word) {
			d = min(d, 1)
		}
		if d < least {
			least, list = d, nil
		}
		if d == least && d < len(w) {
			list = append(list, w)
		}
	}
	return list
}

// edits is how many letters have to be put in, taken out or replaced, or swapped with
// the next, to make b of a. It takes len(a)*len(b) steps; what is long is far away.
func edits(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var before, last, row []int
	for j := range len(b) + 1 {
		last = append(last, j)
	}
	for i := 1; i <= len(a); i++ {
		row = append(make([]int, 0, len(b)+1), i)
		for j := 1; j <= len(b); j++ {
			replaced := last[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			n := min(replaced, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				n = min(n, before[j-2]+1)
			}
			row = append(row, n)
		}
		before, last = last, row
	}
	return last[len(b)]
}

// unknownCommand is the error of a command line whose first word below c is none.
func unknownCommand(c *cobra.Command, args []string) error {
	help := "`" + c.CommandPath() + " --help` lists them"
	if len(args) == 0 {
		return fail.Usage("no command given: %s", help)
	}
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	if list := near(args[0], names); len(list) > 0 {
		help = "did you mean " + c.CommandPath() + " " + strings.Join(list, " or ") + "?"
	}
	return fail.Usage("unknown command %q: %s", args[0], help)
}

// flagError is what is wrong with the flags of c.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return fail.Usage("%w", err)
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	word := unknown.GetSpecifiedName()
	if short := unknown.GetSpecifiedShortnames(); short != "" {
		word, _, _ = strings.Cut(short, "=") // -json
	}
	list := near(word, names)
	if len(list) == 0 {
		return fail.Usage("%w: `%s --help` lists them", err, c.CommandPath())
	}
	return fail.Usage("%w: did you mean --%s?", err, strings.Join(list, " or --"))
}

// outputHint is for an argument too many of a command that writes with -o: if there
// is no such file, it is the one to write.
func outputHint(c *cobra.Command, arg string) string {
	f := c.Flags().Lookup("output")
	if f == nil || f.Changed || infile.Exists(arg) {
		return ""
	}
	return fmt.Sprintf(" (to write that file: -o %s)", text.Quote(arg))
}
