package cli

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"cbt/internal/machines"
	"cbt/internal/store"
	"cbt/internal/text"
)

// printLogged draws the tree of a list that graphOf has put in order and link has linked. A delta stands
// below one that it builds on; others are named after it.
//
// Of several machines, the chains of each stand together.
func printLogged(w io.Writer, list []*store.Entry, in *machines.Directory) error {
	t := &treePrinter{w: bufio.NewWriter(w), below: map[*store.Entry][]*store.Entry{}, reached: map[*store.Entry]bool{}}
	for _, l := range list {
		if l.Below != nil {
			t.below[l.Below] = append(t.below[l.Below], l)
		}
	}
	of := map[*store.Entry]int{}
	for i, l := range list {
		of[l] = in.Of[i]
	}
	var roots []*store.Entry
	for _, l := range list {
		if _, there := of[l.Below]; l.Below == nil || !there {
			roots = append(roots, l)
		}
	}
	slices.SortStableFunc(roots, func(a, b *store.Entry) int { return cmp.Compare(of[a], of[b]) })
	for _, l := range roots {
		t.print(l, "", "")
	}
	for _, l := range list { // in a circle, which no full delta leads to
		t.print(l, "", "")
	}
	return t.w.Flush()
}

type treePrinter struct {
	w       *bufio.Writer
	below   map[*store.Entry][]*store.Entry
	reached map[*store.Entry]bool
}

// print prints a delta and what is below it. A chain without branches does not
// go to the right, or those of years would leave the screen.
func (t *treePrinter) print(l *store.Entry, front, rest string) {
	for {
		if t.reached[l] {
			return
		}
		t.reached[l] = true
		fmt.Fprintf(t.w, "%s%s\n", front, logLine(l))
		children := t.below[l]
		if len(children) != 1 {
			for i, c := range children {
				if i < len(children)-1 {
					t.print(c, rest+"├─ ", rest+"│  ")
				} else {
					t.print(c, rest+"└─ ", rest+"   ")
				}
			}
			return
		}
		l, front = children[0], rest+"│ "
		if len(t.below[l]) == 0 { // nothing follows in this column
			front = rest + "└ "
		}
	}
}

func logLine(l *store.Entry) string {
	if l.Error != "" {
		return fmt.Sprintf("%s  CANNOT BE READ: %s", text.Printable(l.File), l.Error)
	}
	when := strings.Repeat(" ", len(text.TimeLayout))
	if l.Instant != nil {
		when = l.Instant.UTC().Format(text.TimeLayout)
	}
	kind := "increment"
	if l.Full {
		kind = "full"
	}
	var disks, ram int64
	count := 0
	tip := false
	for _, s := range l.Streams {
		if strings.HasPrefix(s.Name, "disk/") {
			count++
			disks += s.Size
			tip = tip || s.To == ""
		} else if strings.HasPrefix(s.Name, "ram/") {
			ram += s.Size
		}
	}
	var parts []string
	if count > 0 {
		parts = append(parts, fmt.Sprintf("%s of %s", text.Count(count, "disk"), text.Size(disks)))
	}
	if ram > 0 {
		parts = append(parts, "RAM of "+text.Size(ram))
	}
	str := fmt.Sprintf("%s  %s  %s, %s in %s", when, text.Printable(l.File), kind, strings.Join(parts, " and "), text.Size(l.Size))
	if brief := briefLevel(l.Consistency); brief != "" && ram == 0 { // RAM says it already
		str += ", " + brief
	}
	if tip {
		str += ", a tip"
	}
	if l.Machine != "" {
		str += ", of " + machines.Short(l.Machine)
	}
	var others []string
	for _, p := range l.Parents {
		if l.Below == nil || p != l.Below.File {
			others = append(others, p)
		}
	}
	if len(others) > 0 {
		str += fmt.Sprintf(", also on %s", text.Printable(strings.Join(others, ", ")))
	}
	switch {
	case len(l.Missing) > 0 && len(l.Parents) == 0:
		str += "  PARENT MISSING"
	case len(l.Missing) > 0:
		str += "  NO FULL DELTA"
	case !l.Full && len(l.Parents) == 0:
		str += "  parent missing, but other deltas lead to its point"
	}
	return str
}
