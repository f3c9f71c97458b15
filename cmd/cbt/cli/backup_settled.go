package cli

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"cbt/internal/machines"
	"cbt/internal/store"
	"cbt/internal/text"
)

// settled is, of several machines that the source was backed up as, that of the
// newest delta, if it was that more than once, or is of no other disk: then no wrong
// name was given last, or it was put right.
func (b *backupRun) settled() (machine int, ok bool) {
	if len(b.known) < 2 {
		return 0, false
	}
	in, count, newest := b.store.Machines, map[int]int{}, map[int]time.Time{}
	others := map[int]bool{}
	for i, l := range b.store.Entries {
		n := in.Of[i]
		same := false
		for _, d := range b.disks {
			source := d.img.identity()
			same = same || source != "" && l.Source(d.stream()) == source
		}
		switch {
		case !b.known[n]:
		case !same:
			others[n] = others[n] || slices.ContainsFunc(l.Streams, func(s store.Stream) bool { return s.Source != "" })
		default:
			count[n]++
			if t := in.List[i].Time; t.After(newest[n]) {
				newest[n] = t
			}
		}
	}
	best := -1
	for n := range count {
		if best < 0 || cmp.Or(newest[n].Compare(newest[best]), cmp.Compare(count[n], count[best]), cmp.Compare(n, best)) > 0 {
			best = n
		}
	}
	return best, best >= 0 && (count[best] > 1 || !others[best])
}

// warnOther says that a source has had another name so far.
func (b *backupRun) warnOther() {
	others := map[string]bool{}
	for i, d := range b.store.Machines.List {
		if b.known[b.store.Machines.Of[i]] && machines.Named(d.Machine) && d.Machine != b.opt.name {
			others[d.Machine] = true
		}
	}
	if len(others) == 0 || b.recognisedAs(b.opt.name) {
		return
	}
	ref, so := text.Printable(b.disks[0].img.Ref), slices.Sorted(maps.Keys(others))
	if slices.ContainsFunc(b.store.Entries, func(l *store.Entry) bool {
		return l.Machine == b.opt.name && slices.ContainsFunc(l.Streams, func(s store.Stream) bool { return s.Source != "" })
	}) {
		b.app.Warnf("%s: was backed up as %s so far, and %s is the name of another disk there: if that is a mistake, the next run with --continue %s instead of --name %s goes on as before",
			ref, strings.Join(so, ", "), b.opt.name, so[len(so)-1], b.opt.name)
		return
	}
	b.app.Warnf("%s: was backed up as %s so far, and is %s from now on", ref, strings.Join(so, ", "), b.opt.name)
}
