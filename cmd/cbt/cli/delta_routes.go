package cli

import (
	"cmp"
	"errors"
	"fmt"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/text"
)

// routes say how the states after d are read: from the deltas of its directory, past
// those that are damaged.
func (o *deltaFiles) routes(d *deltaFile, opt chainOptions) cbt.Routes {
	if o.given != nil {
		r := *o.given
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
		Open:   o.opened,
		Name:   o.endsName,
		Passed: o.passedOver,
		Cache:  cbt.NewCache(),
	}
}

// around are the deltas among which the chain of d is looked for.
func (o *deltaFiles) around(d *deltaFile, opt chainOptions) (*deltaDir, error) {
	dir := cmp.Or(opt.dir, d.dir)
	if dir == "" {
		return &deltaDir{Catalogue: catalogue(nil)}, nil
	}
	return o.deltasIn(dir)
}

// noChain says where the deltas were looked for that d needs.
func (o *deltaFiles) noChain(d *deltaFile, opt chainOptions, err error) error {
	if !errors.As(err, new(*cbt.MissingError)) {
		return err
	}
	where := "(--chain DIR says where to look)"
	if dir := cmp.Or(opt.dir, d.dir); dir != "" {
		where = "in " + text.Printable(dir) + " (--chain DIR looks elsewhere)"
	}
	return fail.WrongBase("%s: %w %s", d.name, err, where)
}

// opened is the delta of these ends, which the opener has opened.
func (o *deltaFiles) opened(e *cbt.Ends) (*cbt.Delta, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.files[e].Delta, nil
}

// endsName is what messages call the delta of these ends.
func (o *deltaFiles) endsName(e *cbt.Ends) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f := o.files[e]; f != nil {
		return text.Printable(f.name)
	}
	return "delta"
}

// damaged is err with the name of the delta that it comes from.
func (o *deltaFiles) damaged(err error) error {
	var of *cbt.DeltaError
	if !errors.As(err, &of) {
		return err
	}
	return fmt.Errorf("%s: %w", o.endsName(of.Delta), of.Err)
}

// passedOver says once of a file that it is damaged, and does not matter.
func (o *deltaFiles) passedOver(e *cbt.Ends, err error) {
	name := o.endsName(e)
	o.mu.Lock()
	said := o.passed[name]
	if o.passed == nil {
		o.passed = map[string]bool{}
	}
	o.passed[name] = true
	o.mu.Unlock()
	if !said {
		o.Warnf(passedOverText, name, err)
	}
}

const passedOverText = "%s: %v: other deltas lead to the same point, and are taken"

// sameStates is another delta of d's directory that leads to all points that d
// leads to; nil if there is none.
func (o *deltaFiles) sameStates(d *deltaFile, opt chainOptions) *deltaFile {
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
