package cli

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cbt/cbt"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/sparse"
)

// subset is what --subset takes: part of N parts.
type subset struct{ part, of uint64 }

func (s *subset) String() string {
	if s.of == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d", s.part, s.of)
}

func (s *subset) Type() string { return "K/N" }

func (s *subset) Set(text string) error {
	k, n, ok := strings.Cut(text, "/")
	var err, err2 error
	s.part, err = strconv.ParseUint(k, 10, 32)
	s.of, err2 = strconv.ParseUint(n, 10, 32)
	if !ok || err != nil || err2 != nil || s.part < 1 || s.part > s.of {
		return fmt.Errorf("must be K/N, with K from 1 to N")
	}
	return nil
}

// has says whether a delta is in the part. The ID is a hash, so that deltas are
// in the same part whatever comes and goes beside them.
func (s *subset) has(id cbt.ID) bool {
	return s.of == 0 || binary.BigEndian.Uint64(id[:])%s.of == s.part-1
}

// dirCheck is a directory being verified.
type dirCheck struct {
	app       *app
	opener    *opener
	subset    subset
	list      []verified    // those of the directory
	files     []*store.File // of the list; nil: damaged
	damaged   []*store.File // those of them whose ends can be read
	unread    int           // those whose ends cannot
	catalogue *cbt.Catalogue
	place     map[*cbt.Delta]int
}

// verifyDir verifies all deltas of a directory, the links between them, and
// that several ways to one point lead to the same.
func (a *app) verifyDir(ctx context.Context, dir string, list *[]verified, part subset) error {
	names, err := store.Names(dir)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return noDeltas(dir)
	}
	o, err := a.newOpener(openerOptions{})
	if err != nil {
		return err
	}
	defer o.Close()
	if err := o.Share(ctx, dir, defaultWait); err != nil {
		return err
	}
	c := &dirCheck{app: a, opener: o, subset: part, place: map[*cbt.Delta]int{}}
	defer func() { *list = append(*list, c.list...) }()
	if err := c.read(ctx, names); err != nil {
		return err
	}
	if err := c.links(ctx); err != nil {
		return err
	}
	return c.routes(ctx)
}

// read reads the files; of those that are not in the part, the ends.
func (c *dirCheck) read(ctx context.Context, names []string) error {
	var files []*store.File
	others := 0
	for _, name := range names {
		d, err := c.opener.OpenDelta(name)
		switch {
		case err == nil && !c.subset.has(d.ID()):
			id := d.ID()
			c.list = append(c.list, verified{Delta: name, OK: true, Part: true, ID: id.String(), Size: d.Size()})
			others++
		default: // what cannot be opened belongs to every part
			if err := c.app.verifyFile(ctx, name, &c.list, true); err != nil {
				return err
			}
			if i := len(c.list) - 1; c.list[i].OK && err != nil {
				return err // it came or changed meanwhile
			} else if !c.list[i].OK {
				if err == nil {
					c.damaged = append(c.damaged, d)
				} else {
					c.unread++
				}
				d = nil
			}
		}
		if d != nil {
			c.place[d.Delta] = len(c.list) - 1
			files = append(files, d)
		}
		c.files = append(c.files, d)
	}
	c.catalogue = store.Catalogue(files)
	if c.subset.of > 0 {
		c.app.Notef("part %s: %d of %s read", c.subset.String(), len(names)-others, text.Count(len(names), "delta"))
	}
	return nil
}

// links looks at what each delta builds on.
func (c *dirCheck) links(ctx context.Context) error {
	faults, err := c.linkFaults(ctx)
	if err != nil {
		return err
	}
	var above []int // deltas that build on others without a parent: --quiet counts them
	roots := 0
	for i := range c.list {
		d := c.files[i]
		if d == nil {
			continue
		}
		for s := range d.Header.Streams {
			err := faults[cbt.Layer{Delta: d.Delta, Stream: s}]
			var mismatch *cbt.BaseMismatchError
			var format *sparse.FormatError
			switch {
			case err == nil:
				continue
			case errors.As(err, &mismatch):
				err = c.find(i, "what it replaces is not what its parent holds: "+err.Error())
			case errors.As(err, &format): // in another part
				err = c.find(i, "its chain is damaged: "+err.Error())
			case !errors.As(err, new(*cbt.MissingError)):
			default:
				why := c.missing(d, s, err)
				if why == c.list[i].Parent {
					continue // said of another stream
				}
				c.list[i].Parent = why
				if c.app.quiet && c.isAbove(d, s, faults) {
					if !slices.Contains(above, i) {
						above = append(above, i)
					}
					continue
				}
				roots++
				err = c.say(i, why)
			}
			if err != nil {
				return err
			}
		}
	}
	if n := len(above); n > 0 && roots > 0 {
		return c.print(text.Count(n, "delta") + " that build on these cannot be restored either")
	}
	for _, i := range above { // in a circle
		if err := c.say(i, c.list[i].Parent); err != nil {
			return err
		}
	}
	return nil
}

// isAbove says whether a delta leads to where a stream of d begins that has no whole chain itself.
func (c *dirCheck) isAbove(d *store.File, stream int, faults map[cbt.Layer]error) bool {
	s := d.Header.Streams[stream]
	return s.From != nil && slices.ContainsFunc(c.catalogue.Leading(s.Name, s.From.Point), func(step cbt.Step) bool {
		other, err := c.opener.Opened(step.Ends)
		return err == nil && step.Ends != d.Ends() && errors.As(faults[cbt.Layer{Delta: other, Stream: step.Index}], new(*cbt.MissingError))
	})
}

// missing says why no chain of whole deltas leads to a stream of d.
func (c *dirCheck) missing(d *store.File, stream int, err error) string {
	all := store.Catalogue(append(slices.DeleteFunc(slices.Clone(c.files), func(d *store.File) bool { return d == nil }), c.damaged...))
	r, failed := all.Route(d.Ends(), stream)
	if failed != nil {
		if c.unread > 0 {
			return err.Error() + "; a damaged file may be what led there"
		}
		return err.Error()
	}
	for _, s := range r.Steps() {
		for _, bad := range c.damaged {
			if s.Ends == bad.Ends() {
				return "parent damaged: " + text.Printable(bad.Name)
			}
		}
	}
	return err.Error()
}

// routes compares the images of deltas that lead to one point.
func (c *dirCheck) routes(ctx context.Context) error {
	for r, err := range c.opener.OtherRoutes(c.files, c.catalogue) {
		if errors.As(err, new(*cbt.MissingError)) {
			continue // said already
		}
		if err != nil {
			return err
		}
		one, other := r.First[len(r.First)-1].Delta, r.Other[len(r.Other)-1].Delta
		if !c.subset.has(other.ID()) {
			continue
		}
		e, err := cbt.Disagree(ctx, r.First, r.Other)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var format *sparse.FormatError
		switch {
		case errors.As(err, &format): // in another part
			if err := c.find(c.place[other], "its chain or that of "+text.Printable(c.opener.NameOf(one))+" is damaged: "+err.Error()); err != nil {
				return err
			}
		case err != nil:
			return fmt.Errorf("%s and %s: %w", c.opener.NameOf(one), c.opener.NameOf(other), err)
		case e.Len > 0:
			text := fmt.Sprintf("leads to the same point of %s as %s, and not to the same bytes: first at offset %d", text.Printable(r.Stream), text.Printable(c.opener.NameOf(one)), e.Off)
			if err := c.find(c.place[other], text); err != nil {
				return err
			}
		}
	}
	return nil
}

// find notes what is wrong with a delta.
func (c *dirCheck) find(i int, what string) error {
	c.list[i].OK, c.list[i].Error = false, what
	return c.say(i, what)
}

func (c *dirCheck) say(i int, what string) error {
	return c.print(text.Printable(c.list[i].Delta) + ": " + text.OneLine(what))
}

func (c *dirCheck) print(line string) error {
	if c.app.json {
		return nil
	}
	_, err := fmt.Fprintln(c.app.Stdout, line)
	return err
}

// linkFaults checks what each stream of the deltas of the part replaces, and
// of the others whether it is there.
func (c *dirCheck) linkFaults(ctx context.Context) (map[cbt.Layer]error, error) {
	faults := map[cbt.Layer]error{}
	var part []cbt.Layer
	for _, d := range c.files {
		if d == nil {
			continue
		}
		for s := range d.Header.Streams {
			l := cbt.Layer{Delta: d.Delta, Stream: s}
			if c.subset.has(d.ID()) {
				part = append(part, l)
			} else if _, err := c.catalogue.Route(d.Ends(), s); err != nil {
				faults[l] = err
			}
		}
	}
	err := c.opener.CheckLinks(ctx, c.catalogue, part, func(l cbt.Layer, err error) error {
		faults[l] = err
		return nil
	})
	return faults, err
}
