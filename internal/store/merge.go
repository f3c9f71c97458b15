package store

import (
	"cmp"
	"errors"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/machines"
	"cbt/internal/text"
)

// Line puts deltas in the order in which they follow one another.
func (o *Files) Line(deltas []*File) ([]*cbt.Delta, error) {
	var list []*cbt.Delta
	for _, d := range deltas {
		list = append(list, d.Delta)
	}
	line, err := cbt.InOrder(list)
	return line, o.LineError(err)
}

// LineError names the two files of a *cbt.OrderError.
func (o *Files) LineError(err error) error {
	var line *cbt.OrderError
	if !errors.As(err, &line) {
		return err
	}
	return fail.WrongBase("%s and %s: %w", o.NameOf(line.A), o.NameOf(line.B), err)
}

// OneMachine says whether deltas that follow one another are of two machines, as
// an overlay and a backing file can be that both were backed up.
func (o *Files) OneMachine(line []*cbt.Delta) error {
	list := make([]machines.Delta, len(line))
	for i, d := range line {
		list[i] = MachineFacts(d.Header)
	}
	of := machines.Group(list).Of
	for i, n := range of {
		if n != of[0] {
			return fail.WrongBase("%s and %s: are of two machines, %s and %s (--name NAME says whose the result is)", o.NameOf(line[0]), o.NameOf(line[i]),
				text.Printable(machines.Short(cmp.Or(line[0].Header.Machine, "one without a name"))), text.Printable(machines.Short(cmp.Or(line[i].Header.Machine, "one without a name"))))
		}
	}
	return nil
}

// MachineFacts is what a header says of a machine.
func MachineFacts(h cbt.Header) machines.Delta {
	d := machines.Delta{Machine: h.Machine}
	if h.Instant != nil {
		d.Time = *h.Instant
	}
	for _, s := range h.Streams {
		st := machines.Stream{Name: s.Name, Source: s.Source, To: s.To}
		if s.From != nil {
			st.From = s.From.Point
		}
		d.Streams = append(d.Streams, st)
	}
	return d
}

// AnyLayers is a layer of each delta, for what looks at whole deltas.
func AnyLayers(deltas []*cbt.Delta) (layers []cbt.Layer) {
	for _, d := range deltas {
		layers = append(layers, cbt.Layer{Delta: d})
	}
	return layers
}

// Unchanged says whether somebody wrote to the deltas since they were opened.
func Unchanged(deltas []*File) error {
	for _, d := range deltas {
		if d.Dir == "" { // standard input, in a file of our own
			continue
		}
		if err := d.Input.Written(); err != nil {
			return err
		}
	}
	return nil
}
