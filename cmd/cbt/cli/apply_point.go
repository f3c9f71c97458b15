package cli

import (
	"errors"
	"fmt"
	"strings"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/text"
)

// wrongPoint says that a target is at another point than the deltas begin at, and
// what takes it there all the same, where a chain is at hand.
func wrongPoint(o *opener, t *task, opt chainOptions, have string) error {
	err := error(&cbt.WrongBaseError{Stream: t.stream(), Want: t.merge.From().Point, Have: have})
	last := t.layers[len(t.layers)-1]
	first, d := o.fileOf(t.layers[0].Delta), o.fileOf(last.Delta)
	if first == nil || d == nil || d.f == nil || d.dir == "" {
		return fail.WrongBase("%s: %w", t.target.path, err)
	}
	err = o.pointsByName(first, opt, err)
	way := ""
	if _, e := o.chain(d, last.Stream, opt); e == nil {
		target := text.PathArgument(t.target.path)
		if len(d.disks()) > 1 {
			target = strings.TrimPrefix(t.stream(), "disk/") + "=" + t.target.path
		}
		from := ""
		if opt.dir != "" {
			from = "--chain " + text.Quote(opt.dir) + " "
		}
		way = fmt.Sprintf(" (cbt restore --in-place %s%s %s takes it to the state after %s)",
			from, text.Quote(text.PathArgument(d.name)), text.Quote(target), text.Printable(d.name))
	}
	return fail.WrongBase("%s: %w%s", t.target.path, err, way)
}

// pointsByName is a *cbt.WrongBaseError in which points are called by the deltas
// around d that lead there; any other error stays as it is.
func (o *deltaFiles) pointsByName(d *deltaFile, opt chainOptions, err error) error {
	wrong, ok := errors.AsType[*cbt.WrongBaseError](err)
	if !ok {
		return err
	}
	all, e := o.around(d, opt)
	if e != nil {
		return err
	}
	name := func(point string) string {
		steps := all.Leading(wrong.Stream, point)
		switch {
		case point == "":
			return "no point: it was not frozen"
		case len(steps) > 0:
			text := "the state after " + o.endsName(steps[0].Ends)
			if at := steps[0].Header.Instant; at != nil {
				text += ofTime(*at)
			}
			return text
		}
		return "point " + point + ", to which no delta here leads"
	}
	return fmt.Errorf("wrong base: %s must be at %s, but is at %s", text.Printable(wrong.Stream), name(wrong.Want), name(wrong.Have))
}

// fileOf is the file of an open delta; nil if that has none.
func (o *deltaFiles) fileOf(d *cbt.Delta) *deltaFile {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.files[d.Ends()]
}
