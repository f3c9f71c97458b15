package cli

import (
	"fmt"
	"path/filepath"
	"time"

	"cbt/internal/machines"
	"cbt/internal/store"
	"cbt/internal/text"
)

// backedUp is the result of backup with --json.
type backedUp struct {
	File           string           `json:"file"`
	ID             string           `json:"id"`
	New            bool             `json:"new"`               // false: DIR had it
	Machine        string           `json:"machine,omitempty"` // as the delta's header has it
	From           string           `json:"from,omitempty"`    // point of the first disk
	To             string           `json:"to,omitempty"`      // of the first disk
	Method         string           `json:"method,omitempty"`  // of the first disk; "full"
	Why            string           `json:"why,omitempty"`
	Bytes          int64            `json:"bytes"` // of the file
	Streams        []backedUpStream `json:"streams,omitempty"`
	NoLongerNeeded []unneeded       `json:"no-longer-needed"`
	OldKey         []unneeded       `json:"no_longer_needed"` // the same, for scripts of before
	Missing        []missing        `json:"missing"`
}

type backedUpStream struct {
	writtenStream
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// reportThere says that there was nothing to do.
func (b *backupRun) reportThere(l *store.Entry) error {
	path := filepath.Join(b.store.Dir, l.File)
	if said := b.opt.diff.consistency; b.opt.diff.labelled && said != l.Consistency {
		b.app.Warnf("%s: --consistency %s changes nothing: the delta is there, and is called %s", text.Printable(path), said, l.Consistency)
	}
	if b.opt.name != "" && l.Machine != b.opt.name {
		called := "and names no machine"
		if l.Machine != "" {
			called = "and is of " + text.Printable(machines.Short(l.Machine))
		}
		b.app.Warnf("%s: --name %s changes nothing: the delta is there, %s; the next one has the name", text.Printable(path), b.opt.name, called)
	}
	b.app.Notef("%s has %s already: %s", text.Printable(b.store.Dir), text.Printable(b.disks[0].img.Ref), text.Printable(path))
	if b.opt.dryRun {
		return b.printThere(path)
	}
	return b.print(backedUp{File: path, ID: l.ID, Machine: l.Machine, To: b.disks[0].img.Point, Bytes: l.Size})
}

// report says what was written, from what, and why from that.
func (b *backupRun) report(took time.Duration) error {
	for i, at := range b.bases {
		d := &b.disks[i]
		name := d.stream()
		switch {
		case d.old == nil:
			b.app.Notef("%s: in full: %s", text.Printable(name), at.why)
		case at.ref == "":
			b.app.Notef("%s: compared with the content of %s: %s", text.Printable(name), text.Printable(at.delta.File), at.why)
		default:
			b.app.Notef("%s: compared with %s: %s", text.Printable(name), text.Printable(at.ref), at.why)
		}
	}
	b.app.Notef("%s: %s", text.Printable(b.file), b.job.summary(b.opener, took))
	d := &b.disks[0]
	r := backedUp{
		File: b.file, ID: b.job.sum.ID.String(), New: true, Machine: b.job.header.Machine, To: d.img.Point, Method: d.method.name, Why: b.bases[0].why, Bytes: b.job.sum.Size,
	}
	if d.old == nil {
		r.Method = "full"
	} else {
		r.From = d.old.Point
	}
	for i, w := range b.job.written() {
		s := backedUpStream{writtenStream: w, To: b.disks[i].img.Point}
		if old := b.disks[i].old; old != nil {
			s.From = old.Point
		}
		r.Streams = append(r.Streams, s)
	}
	return b.print(r)
}

// print prints the result, and which snapshots are no longer needed.
func (b *backupRun) print(r backedUp) error {
	r.NoLongerNeeded = b.noLongerNeeded()
	r.OldKey = r.NoLongerNeeded
	for _, u := range r.NoLongerNeeded {
		b.app.sayUnneeded(u, b.opt.unneeded)
	}
	r.Missing = b.notInDir()
	b.sayMissing(r.Missing)
	if b.app.json {
		return writeJSON(b.app.Stdout, r)
	}
	_, err := fmt.Fprintln(b.app.Stdout, text.OneLine(r.File))
	return err
}
