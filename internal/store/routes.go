package store

import (
	"cmp"
	"errors"
	"fmt"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/text"
)

// PointsByName is a *cbt.WrongBaseError in which points are called by the deltas
// around d that lead there; any other error stays as it is.
func (o *Files) PointsByName(d *File, opt ChainOptions, err error) error {
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

// FileOf is the file of an open delta; nil if that has none.
func (o *Files) FileOf(d *cbt.Delta) *File {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.files[d.Ends()]
}

// Routes say how the states after d are read: from the deltas of its directory, past
// those that are damaged.
func (o *Files) Routes(d *File, opt ChainOptions) cbt.Routes {
	if o.Given != nil {
		r := *o.Given
		r.Cache = cbt.NewCache()
		return r
	}
	return cbt.Routes{
		Catalogue: func() (*cbt.Catalogue, error) {
			all, err := o.around(d, opt)
			if err != nil {
				return nil, err
			}
			return all.Catalogue, nil
		},
		Open:   o.Opened,
		Name:   o.endsName,
		Passed: o.PassedOver,
		Cache:  cbt.NewCache(),
	}
}

// around are the deltas among which the chain of d is looked for.
func (o *Files) around(d *File, opt ChainOptions) (*directory, error) {
	dir := cmp.Or(opt.Dir, d.Dir)
	if dir == "" {
		return &directory{Catalogue: Catalogue(nil)}, nil
	}
	return o.deltasIn(dir)
}

// NoChain says where the deltas were looked for that d needs.
func (o *Files) NoChain(d *File, opt ChainOptions, err error) error {
	if !errors.As(err, new(*cbt.MissingError)) {
		return err
	}
	where := "(--chain DIR says where to look)"
	if dir := cmp.Or(opt.Dir, d.Dir); dir != "" {
		where = "in " + text.Printable(dir) + " (--chain DIR looks elsewhere)"
	}
	return fail.WrongBase("%s: %w %s", d.Name, err, where)
}

// Opened is the delta of these ends, which the opener has opened.
func (o *Files) Opened(e *cbt.Ends) (*cbt.Delta, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.files[e].Delta, nil
}

// endsName is what messages call the delta of these ends.
func (o *Files) endsName(e *cbt.Ends) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f := o.files[e]; f != nil {
		return text.Printable(f.Name)
	}
	return "delta"
}

// Damaged is err with the name of the delta that it comes from.
func (o *Files) Damaged(err error) error {
	var of *cbt.DeltaError
	if !errors.As(err, &of) {
		return err
	}
	return fmt.Errorf("%s: %w", o.endsName(of.Delta), of.Err)
}

// PassedOver says once of a file that it is damaged, and does not matter.
func (o *Files) PassedOver(e *cbt.Ends, err error) {
	name := o.endsName(e)
	o.mu.Lock()
	said := o.passed[name]
	if o.passed == nil {
		o.passed = map[string]bool{}
	}
	o.passed[name] = true
	o.mu.Unlock()
	if !said {
		o.Warnf(PassedOverText, name, err)
	}
}

const PassedOverText = "%s: %v: other deltas lead to the same point, and are taken"

// SameStates is another delta of d's directory that leads to all points that d
// leads to; nil if there is none.
func (o *Files) SameStates(d *File, opt ChainOptions) *File {
	all, err := o.around(d, opt)
	if err != nil {
		return nil
	}
	for _, s := range all.Leading(d.Header.Streams[0].Name, d.Header.Streams[0].To) {
		if s.ID == d.ID() {
			continue
		}
		same := true
		for _, t := range d.Header.Streams {
			i := s.Stream(t.Name)
			same = same && t.To != "" && i >= 0 && s.Header.Streams[i].To == t.To && s.Header.Streams[i].Size == t.Size
		}
		if same {
			return o.files[s.Ends]
		}
	}
	return nil
}
