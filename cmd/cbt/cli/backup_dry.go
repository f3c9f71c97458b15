package cli

import (
	"context"
	"fmt"
	"strings"

	"cbt/internal/text"
	"cbt/sparse"
)

// plannedBackup is the result of backup --dry-run with --json.
type plannedBackup struct {
	DryRun  bool            `json:"dry-run"`
	New     bool            `json:"new"`            // false: DIR has it
	File    string          `json:"file,omitempty"` // that has it
	Payload int64           `json:"payload"`        // bytes at most, before they are compared and compressed
	Streams []plannedStream `json:"streams"`
}

type plannedStream struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Full   bool   `json:"full"`
	Method string `json:"method"` // full, or as in diff
	Base   string `json:"base,omitempty"`
	Why    string `json:"why,omitempty"`
	From   string `json:"from,omitempty"`
	To     string `json:"to,omitempty"`
	Data   int64  `json:"data"` // bytes that may have changed
	Zero   int64  `json:"zero"` // bytes that may have changed, and are zeros now
}

// plan says what the run would do. It reads metadata alone, and writes nothing.
func (b *backupRun) plan(ctx context.Context) (plannedBackup, error) {
	p := plannedBackup{DryRun: true, New: true}
	if _, err := b.app.newDeltaJob(b.disks, &b.opt.diff); err != nil { // what it warns of
		return p, err
	}
	for i := range b.disks {
		d := &b.disks[i]
		s := plannedStream{Name: d.stream(), Size: d.img.View.Size(), Full: d.old == nil, Method: d.method.name, To: d.img.Point}
		if i < len(b.bases) {
			s.Why = b.bases[i].why
		}
		if d.old == nil {
			s.Method = "full"
		} else {
			s.From, s.Base = d.old.Point, d.old.Ref
		}
		extents := d.img.View.Extents(0, s.Size)
		if d.old != nil { // whatever would have to be read to know more
			extents = d.method.changed(0, max(d.old.View.Size(), s.Size))
		}
		for e, err := range extents {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return p, err
			}
			if e.Kind == sparse.Data {
				s.Data += e.Len
			} else if d.old != nil || e.Kind == sparse.Zero {
				s.Zero += e.Len
			}
		}
		if err := d.recheck(); err != nil {
			return p, err
		}
		p.Payload += s.Data
		p.Streams = append(p.Streams, s)
	}
	return p, nil
}

// printThere says that nothing would be written.
func (b *backupRun) printThere(path string) error {
	if b.app.json {
		return writeJSON(b.app.Stdout, plannedBackup{DryRun: true, File: path, Streams: []plannedStream{}})
	}
	_, err := fmt.Fprintln(b.app.Stdout, text.OneLine(path))
	return err
}

// dryRun prints what the run would do.
func (b *backupRun) dryRun(ctx context.Context) error {
	p, err := b.plan(ctx)
	if err != nil {
		return err
	}
	if b.app.json {
		return writeJSON(b.app.Stdout, p)
	}
	var str strings.Builder
	for i, s := range p.Streams {
		name := text.Printable(s.Name)
		switch {
		case s.Full:
			fmt.Fprintf(&str, "%s: would be written in full", name)
		default:
			fmt.Fprintf(&str, "%s: would be compared with %s, %s", name, text.Printable(s.Base), b.disks[i].method.text)
		}
		if s.Why != "" {
			fmt.Fprintf(&str, ": %s", text.OneLine(s.Why))
		}
		fmt.Fprintf(&str, "\n%s: %s of data", name, text.Size(s.Data))
		if s.Zero > 0 {
			fmt.Fprintf(&str, " and %s of zeros", text.Size(s.Zero))
		}
		if s.Full {
			str.WriteString(" to write at most\n")
		} else {
			str.WriteString(" may have changed\n")
		}
	}
	fmt.Fprintf(&str, "a delta of %s at most, before blocks are compared and compressed; nothing is written\n", text.Size(p.Payload))
	_, err = fmt.Fprint(b.app.Stdout, str.String())
	return err
}
