package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cbt/internal/deltaref"
	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/machines"
	"cbt/internal/text"
)

// Resolve puts the delta that DIR@WANT means in its place, with @STREAM after it as
// it was: "b@latest@0" becomes "b/tue.cbt@0". Other references stay as they are. A
// directory of deltas by itself is refused, with its newest delta named.
func (o *Files) Resolve(ref string) (string, error) {
	if real, ok := o.Resolved[ref]; ok {
		return real, nil
	}
	if infile.Exists(ref) {
		return ref, o.refuseDeltaDir(ref)
	}
	dir, want, stream := SplitRef(ref)
	if dir == "" {
		return ref, nil
	}
	path, err := o.deltaIn(dir, want)
	if err != nil {
		return "", err
	}
	if o.Resolved == nil {
		o.Resolved = map[string]string{}
	}
	o.Resolved[ref] = path + stream
	return path + stream, nil
}

// SplitRef takes DIR@WANT or DIR@WANT@STREAM apart; dir is empty if ref is
// neither.
func SplitRef(ref string) (dir, want, stream string) {
	for end := len(ref); ; {
		at := strings.LastIndexByte(ref[:end], '@')
		if at <= 0 {
			return "", "", ""
		}
		if info, err := os.Stat(ref[:at]); err == nil {
			if !info.IsDir() {
				return "", "", ""
			}
			return ref[:at], ref[at+1 : end], ref[end:]
		}
		if end < len(ref) {
			return "", "", ""
		}
		end = at
	}
}

// deltaIn is the path of the delta of a directory that want means.
func (o *Files) deltaIn(dir, want string) (string, error) {
	if want == "" {
		return "", fail.Usage("%s@: no delta after the @: is a variable unset?", text.Printable(dir))
	}
	list, all, err := o.DeltasToChoose(dir)
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", fmt.Errorf("%s: has no .cbt files that can be read, so none is meant by @%s", text.Printable(dir), text.Printable(want))
	}
	i, byTime, err := deltaref.Find(all, want, time.Local)
	if many, ok := errors.AsType[*deltaref.AmbiguousError](err); ok {
		for n, c := range many.Choices {
			many.Choices[n] = text.Printable(c)
		}
		return "", fail.Usage("%s: %s: %s: choose one of %s", text.Printable(dir), text.Printable(many.Want), many.Why, strings.Join(many.Choices, ", "))
	}
	if err != nil {
		return "", fmt.Errorf("%s: %s", text.Printable(dir), text.Printable(err.Error()))
	}
	path := filepath.Join(dir, all[i].File)
	o.Notef("%s@%s is %s%s", text.Printable(dir), text.Printable(want), text.Printable(path), ofTime(all[i].Time))
	for _, l := range list {
		if l.Error != "" && byTime {
			o.Warnf("%s: cannot be read, so it is not known whether it is newer", text.Printable(filepath.Join(dir, l.File)))
		}
	}
	return path, nil
}

// ofTime says a time in UTC and, if that is another, in the local zone.
func ofTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	text := ", of " + t.UTC().Format(text.TimeLayout)
	if local := t.Local(); local.Format(time.DateTime) != t.UTC().Format(time.DateTime) {
		text += " (" + local.Format("2006-01-02 15:04:05 MST") + ")"
	}
	return text
}

// DeltasToChoose are all files of a directory, and of those that can be read what
// a reference goes by.
func (o *Files) DeltasToChoose(dir string) (list []*Entry, all []deltaref.Delta, err error) {
	names, err := Names(dir)
	if err != nil {
		return nil, nil, err
	}
	if list, err = ReadEntries(context.Background(), o.Reads.Audit, dir, names); err != nil {
		return nil, nil, err
	}
	NewGraph(list)
	in := MachinesOf(list)
	called := map[int][]string{} // what each machine is called, the best names first
	for rank := range 3 {
		for i, l := range list {
			d := in.List[i]
			name := []string{"", d.Image, d.Machine}[rank]
			if rank == 0 && machines.Named(d.Machine) {
				name = d.Machine
			}
			if n := in.Of[i]; l.Error == "" && name != "" && !slices.Contains(called[n], name) {
				called[n] = append(called[n], name)
			}
		}
	}
	times := slices.Clone(in.List)
	for i, l := range list {
		if info, err := os.Stat(filepath.Join(dir, l.File)); l.Error == "" && l.Instant == nil && err == nil {
			times[i].Time = info.ModTime() // as prune has it
		}
	}
	machines.InTime(times)
	for i, l := range list {
		if l.Error != "" {
			continue
		}
		d := deltaref.Delta{File: l.File, ID: l.ID, Machine: in.Of[i], Names: called[in.Of[i]], Time: times[i].Time, Broken: len(l.Missing) > 0}
		for _, s := range l.Streams {
			d.Points += s.Name + "=" + s.To + "\n"
			if s.To == "" { // a tip is a point of its own
				d.Points += l.File
			}
		}
		all = append(all, d)
	}
	return list, all, nil
}

// refuseDeltaDir refuses a directory of deltas where one delta is wanted.
func (o *Files) refuseDeltaDir(path string) error {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return nil
	}
	_, all, err := o.DeltasToChoose(path)
	if err != nil || len(all) == 0 {
		return nil // what opens it says that it is a directory
	}
	i, _, err := deltaref.Find(all, deltaref.Latest, time.Local)
	if many, ok := errors.AsType[*deltaref.AmbiguousError](err); ok {
		var choices []string
		for _, c := range many.Choices {
			choices = append(choices, text.Quote(path+"@"+c))
		}
		return fail.Usage("%s: is a directory of deltas: name one of them, such as the newest: %s", text.Printable(path), strings.Join(choices, ", "))
	}
	if err != nil {
		return fail.Usage("%s: is a directory of deltas: name one of them", text.Printable(path))
	}
	return fail.Usage("%s: is a directory of deltas: name one of them: the newest is %s%s (%s)",
		text.Printable(path), text.Printable(all[i].File), ofTime(all[i].Time), text.Quote(path+"@"+deltaref.Latest))
}
