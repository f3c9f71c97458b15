package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cbt/internal/infile"
	"cbt/internal/store"
	"cbt/internal/text"
)

// missing is a snapshot of the source that the directory has not, though it was
// taken since the directory has had the machine: its delta was lost or pruned, or
// never written.
type missing struct {
	Snapshot string   `json:"snapshot"`
	Command  string   `json:"command,omitempty"`  // that writes the delta
	Remove   string   `json:"remove,omitempty"`   // that deletes the snapshot
	Children []string `json:"children,omitempty"` // deltas that build on it and cannot be restored without it
	Delta    string   `json:"delta,omitempty"`    // that leads there, but builds on what is missing
	words    []string // of Command
	deletion unneeded
}

// notInDir are the snapshots of the source that no whole chain leads to, as far as
// somebody should know: those that deltas build on, and those that are younger than the
// oldest delta of the machine and older than the newest state, if no delta has the
// machine at their instant. Nobody is told of others: there may be many that were never meant for the directory.
func (b *backupRun) notInDir() []missing {
	list := []missing{}
	for i, states := range b.lost {
		d := &b.disks[i]
		since := b.since(d.stream())
		before := len(list)
		for n := range states {
			k := &states[n]
			if k.point == d.img.Point {
				continue
			}
			m := missing{Snapshot: strings.TrimPrefix(k.ref, lvmPrefix), words: b.again(i, k), deletion: b.deletion(k)}
			m.Remove = m.deletion.Command
			if m.words != nil {
				m.Command = text.CommandLine(text.ScriptQuote, m.words...)
			}
			mended := false
			for _, l := range b.store.Entries {
				switch {
				case l.From(d.stream()) == k.point:
					m.Children = append(m.Children, l.File)
				case l.To(d.stream()) == k.point && m.Delta == "" && !b.mends(l, i):
					m.Delta = l.File
				case l.To(d.stream()) == k.point:
					mended = true
				}
			}
			if mended && m.Delta == "" {
				continue
			}
			if len(m.Children) == 0 && (since.IsZero() || !k.instant.After(since) || !b.isOlder(i, k)) {
				continue
			}
			if len(m.Children) == 0 && m.Delta == "" && b.hasInstant(i, k) {
				continue
			}
			if m.Delta != "" {
				m.Children = nil // they are lost with it
			}
			list = append(list, m)
		}
		// Once the first of a chain is there again, so are those that build on it.
		if slices.ContainsFunc(list[before:], func(m missing) bool { return len(m.Children) > 0 }) {
			list = append(list[:before], slices.DeleteFunc(list[before:], func(m missing) bool { return m.Delta != "" })...)
		}
	}
	return list
}

// hasInstant says whether the directory has the machine at the instant of a snapshot,
// at another point: it was backed up before the image was copied or its backing file
// changed. The time of a delta of several disks is that of the last of them.
func (b *backupRun) hasInstant(i int, k *kept) bool {
	if k.img == nil || k.instant.IsZero() {
		return false
	}
	last := k.instant
	for _, states := range b.lost {
		for _, other := range states {
			if other.name == k.name && other.instant.After(last) {
				last = other.instant
			}
		}
	}
	stream := b.disks[i].stream()
	return slices.ContainsFunc(b.store.Entries, func(l *store.Entry) bool {
		return b.of[b.store.Machines.Of[b.store.Place[l]]] && l.Instant != nil && (l.Instant.Equal(k.instant) || l.Instant.Equal(last)) &&
			slices.Contains(b.store.Ends[store.Point{Stream: stream, Point: l.To(stream)}], l)
	})
}

// mends says whether a delta leads to where l begins once this run's is there.
func (b *backupRun) mends(l *store.Entry, i int) bool {
	stream, point := b.disks[i].stream(), b.disks[i].img.Point
	for range b.store.Entries {
		from := l.From(stream)
		if from == "" || from == point {
			return from != ""
		}
		n := slices.IndexFunc(b.store.Entries, func(l *store.Entry) bool { return l.To(stream) == from })
		if n < 0 {
			return false
		}
		l = b.store.Entries[n]
	}
	return false
}

// since is the time of the oldest delta of the machine that has a stream.
func (b *backupRun) since(stream string) (at time.Time) {
	in := b.store.Machines
	for i, l := range b.store.Entries {
		if t := in.List[i].Time; b.of[in.Of[i]] && l.Has(stream) && !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	return at
}

// isOlder says whether a state of a disk is older than what is backed up, or than
// one that the directory has.
func (b *backupRun) isOlder(i int, k *kept) bool {
	return k.instant.Before(b.disks[i].img.Instant) || slices.ContainsFunc(b.kept[i], func(other kept) bool { return k.instant.Before(other.instant) })
}

// again is the command that backs up an older state of one disk: this run's, with
// that snapshot in place of its own; nil if that cannot be said so.
func (b *backupRun) again(i int, k *kept) []string {
	if len(b.disks) > 1 && k.img == nil {
		return nil
	}
	words := append([]string{"cbt"}, b.app.args...)
	for n, ref := range b.refs {
		old := k.ref
		if k.img != nil {
			now := b.disks[n].snapshotName()
			stem, ok := strings.CutSuffix(ref, "@"+now)
			if now == "" || !ok {
				return nil
			}
			old = stem + "@" + k.name
		} else if name, _, ok := strings.Cut(ref, "="); ok && !infile.Exists(ref) {
			old = name + "=" + old
		}
		at := slices.Index(words, ref)
		if at < 0 {
			return nil
		}
		words[at] = old
	}
	return words
}

// snapshotName is the name of the internal snapshot that a disk is read from.
func (d *disk) snapshotName() string {
	if d.img.Img == nil {
		return ""
	}
	for _, s := range d.img.Img.Snapshots() {
		if d.img.Point != "" && snapshotPoint(d.img.img, &s) == d.img.Point {
			return s.Name
		}
	}
	return ""
}

// sayMissing prints what is not in the directory. What cannot be restored without
// it is a warning, the rest may be as it was meant.
func (b *backupRun) sayMissing(list []missing) {
	const most = 5
	dir, said := text.Printable(b.store.Dir), 0
	for _, m := range list {
		write := ""
		if m.words != nil {
			write = ": " + text.CommandLine(text.Quote, m.words...) + " writes it again"
		}
		switch {
		case len(m.Children) > 0:
			b.app.Warnf("%s: the delta of %s is missing, and %s cannot be restored without it%s", dir, text.Printable(m.Snapshot), text.Printable(strings.Join(m.Children, ", ")), write)
			continue
		case m.Delta != "":
			b.app.Warnf("%s: %s cannot be restored, because deltas are missing that it builds on; it is that of %s%s", dir, text.Printable(m.Delta), text.Printable(m.Snapshot), write)
			continue
		}
		if said++; said > most {
			continue
		}
		str := fmt.Sprintf("%s has no delta of %s: lost, pruned, or never written%s", dir, text.Printable(m.Snapshot), write)
		if m.deletion.words != nil {
			str += "; " + text.CommandLine(text.Quote, m.deletion.words...) + " deletes the snapshot"
		} else if way := m.deletion.wayOfMachine(); way != "" {
			str += "; " + way
		}
		b.app.Notef("%s", str)
	}
	if said > most {
		b.app.Notef("%s has no delta of %s more (--json names them)", dir, text.Count(said-most, "snapshot"))
	}
}
