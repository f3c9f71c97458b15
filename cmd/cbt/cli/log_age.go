package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"cbt/internal/fail"
	"cbt/internal/machines"
	"cbt/internal/retention"
	"cbt/internal/store"
	"cbt/internal/text"
)

// ageValue is the age that a newest point may have.
type ageValue struct {
	retention.Span
	set bool
}

func (v *ageValue) Set(s string) (err error) {
	v.Span, err = retention.ParseTime(s)
	v.set = true
	return err
}

func (v *ageValue) String() string { return v.Span.String() }
func (v *ageValue) Type() string   { return "AGE" }

// machineAge is how old what can be restored of a machine is.
type machineAge struct {
	name   string
	newest time.Time // of the points that can be restored and say when they were
	whole  int       // deltas to whose state a whole chain leads
	broken int       // the others
}

// agesOf are the machines of a directory, by name. Deltas that neither name a machine
// nor have a name that backup gave count together: nothing tells what they are.
func (a *app) agesOf(list []*store.Entry, in *machines.Directory) []*machineAge {
	const unnamed = -1
	byNumber, labels := map[int]*machineAge{}, labelsOf(in)
	var all []*machineAge
	for i, l := range list {
		if l.Error != "" {
			continue
		}
		n, label := in.Of[i], labels[in.Of[i]]
		if label == "" {
			n = unnamed
		}
		m := byNumber[n]
		if m == nil {
			m = &machineAge{name: label}
			byNumber[n] = m
			all = append(all, m)
		}
		at := in.List[i].Time
		switch {
		case len(l.Missing) > 0:
			m.broken++
			continue
		case time.Until(at) > time.Hour:
			a.Warnf("%s: is of a time to come, %s: not counted", text.Printable(l.File), at.Format(text.TimeLayout))
		case at.After(m.newest):
			m.newest = at
		}
		m.whole++
	}
	slices.SortStableFunc(all, func(a, b *machineAge) int { return strings.Compare(a.name, b.name) })
	return all
}

// labelsOf are what people call the machines of a directory: by their names, else
// the image of the newest delta and what it is called by itself.
func labelsOf(in *machines.Directory) map[int]string {
	names, images := map[int]string{}, map[int]string{}
	for i, d := range in.List {
		n := in.Of[i]
		if machines.Named(d.Machine) || d.Machine != "" && !machines.Named(names[n]) {
			names[n] = d.Machine
		}
		images[n] = cmp.Or(d.Image, images[n])
	}
	labels := map[int]string{}
	for n, image := range images {
		switch name := names[n]; {
		case machines.Named(name) || image == "":
			labels[n] = machines.Short(name)
		case name == "":
			labels[n] = image
		default:
			labels[n] = fmt.Sprintf("%s (%s)", image, machines.Short(name))
		}
	}
	return labels
}

// ofMachines are the deltas of the machines that names call, and which of the
// names call none. The name of an image calls those of no machine that has it.
func ofMachines(list []*store.Entry, in *machines.Directory, names []string) (of []*store.Entry, none []string) {
	wanted := map[int]bool{}
	for _, name := range names {
		found := slices.ContainsFunc(in.List, func(d machines.Delta) bool { return d.Machine == name })
		isName := found
		for i, d := range in.List {
			if d.Machine == name || strings.Contains(name, ":") && strings.HasPrefix(d.Machine, name) || !isName && !machines.Named(d.Machine) && d.Image == name {
				wanted[in.Of[i]], found = true, true
			}
		}
		if !found {
			none = append(none, name)
		}
	}
	for i, l := range list {
		if wanted[in.Of[i]] {
			of = append(of, l)
		}
	}
	return of, none
}

// state is what monitoring wants to know of a directory.
type state struct {
	old    []string // what is wrong with machines whose newest point is not young enough
	broken int      // deltas that cannot be restored
	good   []string // the others, for people
	ages   []string // of all, as Nagios takes measured values
}

// judge says which machines have no point that can be restored and is young
// enough.
func judge(all []*machineAge, most ageValue, now time.Time) (s state) {
	limit := most.Before(now)
	for _, m := range all {
		s.broken += m.broken
		name := cmp.Or(m.name, "deltas without a name")
		of := text.Printable(name) + ": "
		if m.name == "" && len(all) == 1 {
			of = ""
		}
		age := now.Sub(m.newest)
		switch {
		case m.whole == 0:
			s.old = append(s.old, of+"no point can be restored: deltas are missing that all others build on")
			continue
		case m.newest.IsZero():
			s.old = append(s.old, of+"no delta tells when its point was")
			continue
		case m.newest.Before(limit):
			s.old = append(s.old, fmt.Sprintf("%sthe newest point that can be restored is of %s, %s ago", of, m.newest.UTC().Format(text.TimeLayout), roundAge(age)))
		default:
			s.good = append(s.good, fmt.Sprintf("%s %s", text.Printable(name), roundAge(age)))
		}
		label := strings.Map(func(r rune) rune {
			if r == '\'' || r == '=' || r == '|' || text.Unprintable(r) {
				return '_'
			}
			return r
		}, name)
		s.ages = append(s.ages, fmt.Sprintf("'%s'=%ds;;%d", label, max(0, int64(age.Seconds())), int64(now.Sub(limit).Seconds())))
	}
	return s
}

// roundAge is an age for people.
func roundAge(d time.Duration) string {
	d = max(d, 0).Round(time.Minute)
	day := 24 * time.Hour
	switch days := d / day; {
	case days > 0:
		return fmt.Sprintf("%dd%dh", days, (d-days*day)/time.Hour)
	case d < time.Minute:
		return "less than 1m"
	default:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
}

// The exit codes of plugins of Nagios.
const (
	nagiosOK = iota
	nagiosWarning
	nagiosCritical
	nagiosUnknown
)

// printNagios prints the one line that Nagios takes, and returns its exit code.
func (a *app) printNagios(dir string, s state, machines, unread int) error {
	code, word, str := nagiosOK, "OK", fmt.Sprintf("%s: %s: %s", text.Printable(dir), text.Count(machines, "machine"), strings.Join(s.good, ", "))
	var wrong []string
	if unread > 0 {
		wrong = append(wrong, text.Count(unread, "file")+" cannot be read as deltas")
	}
	if s.broken > 0 {
		wrong = append(wrong, text.Count(s.broken, "delta")+" cannot be restored, because deltas are missing")
	}
	switch {
	case len(s.old) > 0:
		code, word, str = nagiosCritical, "CRITICAL", fmt.Sprintf("%s: %s", text.Printable(dir), strings.Join(append(s.old, wrong...), "; "))
	case len(wrong) > 0:
		code, word, str = nagiosWarning, "WARNING", fmt.Sprintf("%s: %s; newest points: %s", text.Printable(dir), strings.Join(wrong, "; "), strings.Join(s.good, ", "))
	}
	line := "CBT " + word + " - " + strings.ReplaceAll(str, "|", "_")
	if len(s.ages) > 0 {
		line += " | " + strings.Join(s.ages, " ")
	}
	if _, err := fmt.Fprintln(a.Stdout, text.OneLine(line)); err != nil || code == nagiosOK {
		return err
	}
	return &fail.Error{Code: code, Err: errSaid}
}
