package cli

import (
	"fmt"
	"strings"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/store"
	"cbt/internal/text"
)

// wrongPoint says that a target is at another point than the deltas begin at, and
// what takes it there all the same, where a chain is at hand.
func wrongPoint(o *opener, t *task, opt store.ChainOptions, have string) error {
	err := error(&cbt.WrongBaseError{Stream: t.stream(), Want: t.merge.From().Point, Have: have})
	last := t.layers[len(t.layers)-1]
	first, d := o.FileOf(t.layers[0].Delta), o.FileOf(last.Delta)
	if first == nil || d == nil || d.Input == nil || d.Dir == "" {
		return fail.WrongBase("%s: %w", t.target.path, err)
	}
	err = o.PointsByName(first, opt, err)
	way := ""
	if _, e := o.Chain(d, last.Stream, opt); e == nil {
		target := text.PathArgument(t.target.path)
		if len(d.Disks()) > 1 {
			target = strings.TrimPrefix(t.stream(), "disk/") + "=" + t.target.path
		}
		from := ""
		if opt.Dir != "" {
			from = "--chain " + text.Quote(opt.Dir) + " "
		}
		way = fmt.Sprintf(" (cbt restore --in-place %s%s %s takes it to the state after %s)",
			from, text.Quote(text.PathArgument(d.Name)), text.Quote(target), text.Printable(d.Name))
	}
	return fail.WrongBase("%s: %w%s", t.target.path, err, way)
}
