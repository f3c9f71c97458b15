package cli

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"cbt/internal/fail"
	"cbt/internal/machines"
	"cbt/internal/store"
	"cbt/internal/text"
)

// identify finds out which machine of the directory the disks are of, and what
// the delta calls it. A source that the directory does not know goes on from
// nothing there until somebody says what it is: files of one name may be of two
// machines.
func (b *backupRun) identify(refs []string) error {
	in := b.store.Machines
	b.known = b.recognised()
	switch {
	case b.opt.continues != "":
		n, err := b.continued(b.opt.continues)
		if err != nil {
			return err
		}
		b.of = map[int]bool{n: true}
	case b.opt.name != "":
		b.of = b.called(b.opt.name)
		b.warnOther()
	default:
		b.of = b.known
		if n, ok := b.settled(); ok {
			b.of = map[int]bool{n: true}
		}
		if len(b.of) != 1 && b.store.Readable() > 0 {
			return b.unknown(refs)
		}
	}
	b.opt.diff.machine = b.opt.name
	if b.opt.name == "" {
		b.opt.diff.machine = b.machineName()
	}
	if m := b.opt.diff.machine; machines.Named(m) {
		b.image = store.ImageName(m)
	}
	b.warnTurns(in)
	return nil
}

// called are the machines that a name means: those that have it in their
// headers; what the directory knows this source as so far, if that has no name;
// and, of a name that is new, deltas that name no machine and have it in their
// files' names, unless a machine goes on from them.
func (b *backupRun) called(name string) map[int]bool {
	in, of := b.store.Machines, map[int]bool{}
	identified := map[int]bool{}
	for i, d := range in.List {
		if b.store.Entries[i].Error == "" && d.Machine == name {
			of[in.Of[i]] = true
		}
		if d.Machine != "" {
			identified[in.Of[i]] = true
		}
	}
	isNew := len(of) == 0
	for n := range b.known {
		if !b.isNamed(n) {
			of[n] = true
		}
	}
	byName := false
	for i, d := range in.List {
		n := in.Of[i]
		if isNew && b.store.Entries[i].Error == "" && d.Image == name && !identified[n] && !of[n] {
			byName = byName || !b.known[n]
			of[n] = true
		}
	}
	if byName {
		b.app.Warnf("%s: the deltas called %s-... name no machine, and are taken for older ones of %s by that name alone, by prune too: if they are another machine's, remove what this run writes, and give another --name",
			text.Printable(b.store.Dir), text.Printable(name), text.Printable(b.disks[0].img.Ref))
	}
	return of
}

// isNamed says whether a user gave the machine a name.
func (b *backupRun) isNamed(n int) bool {
	for i, d := range b.store.Machines.List {
		if b.store.Machines.Of[i] == n && machines.Named(d.Machine) {
			return true
		}
	}
	return false
}

// recognised are the machines that the source is of, as far as its own identity
// and its points tell. Points of backing files do not count: they may be those of
// other machines too.
func (b *backupRun) recognised() map[int]bool {
	in := b.store.Machines
	bySource, byPoint := map[int]bool{}, map[int]bool{}
	sources, names := make([]string, len(b.disks)), make([]string, len(b.disks))
	for k, d := range b.disks {
		sources[k], names[k] = d.img.identity(), d.img.machineName()
	}
	for i, l := range b.store.Entries {
		for k := range b.disks {
			source, machine := sources[k], names[k]
			for _, s := range l.Streams {
				switch {
				case machine != "" && machine == l.Machine, source != "" && source == s.Source:
					bySource[in.Of[i]] = true
				// What begins at one of its points may be an overlay over it.
				case b.own[k][store.WithoutTimes(s.To)] || s.Source == "" && b.own[k][store.WithoutTimes(s.From)]:
					byPoint[i] = true
				}
			}
		}
	}
	if len(bySource) > 0 {
		return bySource
	}
	of := map[int]bool{}
	for i := range byPoint {
		// An older delta is adopted, but not if another disk has adopted it.
		if l := b.store.Entries[i]; l.Machine != "" || !b.isOfOther(in.Of[i]) {
			of[in.Of[i]] = true
		}
	}
	if len(of) == 0 && len(byPoint) > 0 {
		of[-1] = true // a machine of its own, which shares older points
	}
	return of
}

// isOfOther says whether deltas of a machine are known to be of disks that are
// none of these.
func (b *backupRun) isOfOther(n int) bool {
	for i, l := range b.store.Entries {
		if b.store.Machines.Of[i] == n && slices.ContainsFunc(l.Streams, func(s store.Stream) bool { return s.Source != "" }) {
			return true
		}
	}
	return false
}

// machineName is what the delta calls the machine: as the directory does, a given
// name before others; else by the identity of the first disk that has one.
func (b *backupRun) machineName() string {
	name, image := "", ""
	for i, d := range b.store.Machines.List {
		if !b.of[b.store.Machines.Of[i]] {
			continue
		}
		if machines.Named(d.Machine) || d.Machine != "" && !machines.Named(name) {
			name = d.Machine
		}
		image = cmp.Or(d.Image, image)
	}
	if name == "" && image != "" && b.opt.continues != "" {
		name = store.ImageName(image) // of older deltas, which have no name but that
	}
	for _, d := range b.disks {
		name = cmp.Or(name, d.img.machineName())
	}
	for _, d := range b.disks {
		name = cmp.Or(name, d.img.identity())
	}
	return name
}

// key is what --continue can call a machine.
func (b *backupRun) key(n int) string {
	in := b.store.Machines
	name, image, file, alone := "", "", "", true
	for i, d := range in.List {
		if in.Of[i] != n {
			continue
		}
		if machines.Named(d.Machine) || d.Machine != "" && !machines.Named(name) {
			name = d.Machine
		}
		image, file = cmp.Or(d.Image, image), b.store.Entries[i].File
	}
	if machines.Named(name) {
		return name
	}
	for i, d := range in.List {
		if in.Of[i] != n && (d.Image == image || d.Machine == image) {
			alone = false
		}
	}
	switch {
	case image != "" && alone:
		return image
	case name != "":
		return name
	}
	return file
}

// keys are all machines of the directory, as --continue calls them, those that
// begin to look like this source first.
func (b *backupRun) keys() (list []string) {
	var rest []string
	seen := map[int]bool{}
	for i, n := range b.store.Machines.Of {
		if seen[n] || b.store.Entries[i].Error != "" {
			continue
		}
		seen[n] = true
		if key := b.key(n); b.known[n] || key == b.image {
			list = append(list, key)
		} else {
			rest = append(rest, key)
		}
	}
	slices.Sort(rest)
	return append(list, rest...)
}

// continued is the machine that --continue names: as headers or the names of files
// have it, by the beginning of an identity, or by one of its files.
func (b *backupRun) continued(name string) (int, error) {
	in := b.store.Machines
	for _, fits := range []func(d machines.Delta, file string) bool{
		func(d machines.Delta, _ string) bool { return d.Machine == name },
		func(d machines.Delta, _ string) bool { return d.Image == name },
		func(_ machines.Delta, file string) bool { return file == filepath.Base(name) },
		func(d machines.Delta, _ string) bool {
			return strings.Contains(name, ":") && strings.HasPrefix(d.Machine, name)
		},
	} {
		found := map[int]bool{}
		for i, d := range in.List {
			if b.store.Entries[i].Error == "" && fits(d, b.store.Entries[i].File) {
				found[in.Of[i]] = true
			}
		}
		if len(found) > 1 {
			var keys []string
			for n := range found {
				keys = append(keys, text.Printable(b.key(n)))
			}
			slices.Sort(keys)
			return 0, fail.Usage("--continue %s: %s has several machines that this fits: %s", text.Printable(name), text.Printable(b.store.Dir), strings.Join(keys, ", "))
		}
		for n := range found {
			return n, nil
		}
	}
	if len(in.List) == 0 {
		return 0, fail.Usage("--continue %s: %s has no delta to go on from (--name gives a machine a name)", text.Printable(name), text.Printable(b.store.Dir))
	}
	return 0, fail.Usage("--continue %s: %s has no such machine; there are: %s", text.Printable(name), text.Printable(b.store.Dir), strings.Join(printableAll(b.keys()), ", "))
}

func printableAll(list []string) (shown []string) {
	for _, s := range list {
		shown = append(shown, text.Printable(s))
	}
	return shown
}

// unknown refuses a source of which nothing tells which machine it is of, with
// the commands that say it.
func (b *backupRun) unknown(refs []string) error {
	keys := b.keys()
	of := text.Count(len(keys), "machine")
	str := fmt.Sprintf("%s: %s knows no such disk, and has deltas of %s: nothing is written until it is said which machine this is", text.Printable(strings.Join(refs, " ")), text.Printable(b.store.Dir), of)
	if len(b.of) > 1 {
		str = fmt.Sprintf("%s: %s has deltas of it under several names: nothing is written until it is said which machine this is", text.Printable(strings.Join(refs, " ")), text.Printable(b.store.Dir))
	}
	str += fmt.Sprintf("; another one: `%s`", b.commandWith("--name", b.freeName(keys)))
	const most = 3
	for i, key := range keys {
		if i == most {
			str += fmt.Sprintf("; `cbt log %s` shows %d more", text.Quote(b.store.Dir), len(keys)-most)
			break
		}
		str += fmt.Sprintf("; the same as %s: `%s`", text.Printable(machines.Short(key)), b.commandWith("--continue", key))
	}
	return fail.Usage("%s", str)
}

// commandWith is the command line of this run with one more flag.
func (b *backupRun) commandWith(flag, value string) string {
	args := append([]string{"cbt"}, b.app.args...)
	at := 1 + max(0, slices.Index(args[1:], "backup"))
	return text.CommandLine(text.Quote, slices.Insert(args, at+1, flag, value)...)
}

// freeName is a name that no machine of the directory has.
func (b *backupRun) freeName(keys []string) string {
	taken := map[string]bool{}
	for _, key := range keys {
		taken[key] = true
	}
	for _, d := range b.store.Machines.List {
		taken[d.Image], taken[d.Machine] = true, true
	}
	name := b.image
	for n := 2; taken[name]; n++ {
		name = fmt.Sprintf("%s-%d", b.image[:min(len(b.image), store.MaxImageName-12)], n)
	}
	return name
}

// recognisedAs says whether the source was backed up under a name.
func (b *backupRun) recognisedAs(name string) bool {
	return slices.ContainsFunc(b.store.Machines.List, func(d machines.Delta) bool { return d.Machine == name }) &&
		slices.ContainsFunc(b.store.Machines.Of, func(n int) bool { return b.known[n] && b.of[n] })
}

// warnTurns says that two disks are backed up in turns under one name.
func (b *backupRun) warnTurns(in *machines.Directory) {
	for _, d := range b.disks {
		source, seen, last := d.img.identity(), false, ""
		for i, l := range b.store.Entries {
			for _, s := range l.Streams {
				if b.of[in.Of[i]] && s.Name == d.stream() && s.Source != "" {
					seen, last = seen || s.Source == source, s.Source
				}
			}
		}
		if seen && last != source {
			b.app.Warnf("%s of %s was read from another disk the last time, and from this one before: two disks of a machine are two REFs of one run (NAME=REF), two machines have a --name each",
				text.Printable(d.stream()), text.Printable(machines.Short(b.opt.diff.machine)))
		}
	}
}
