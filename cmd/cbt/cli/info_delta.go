package cli

import (
	"fmt"
	"text/tabwriter"
	"time"

	"cbt/cbt"
	"cbt/internal/text"
)

// deltaInfo is what info says of a delta.
type deltaInfo struct {
	Filename    string       `json:"filename"`
	Format      string       `json:"format"`
	ActualSize  int64        `json:"actual-size"`
	Version     int          `json:"version"`
	ID          string       `json:"id"`
	Consistency string       `json:"consistency"`
	Instant     *time.Time   `json:"instant,omitempty"`
	Machine     string       `json:"machine,omitempty"`
	Payload     int64        `json:"payload"`
	Streams     []streamInfo `json:"streams"`
}

type streamInfo struct {
	Name        string  `json:"name"`
	VirtualSize int64   `json:"virtual-size"`
	Full        bool    `json:"full"`
	From        *string `json:"from,omitempty"`
	FromSize    *int64  `json:"from-size,omitempty"`
	To          string  `json:"to,omitempty"`
	Data        int64   `json:"data"`
	Zero        int64   `json:"zero"`
	Checked     int64   `json:"checked"`
	Chunks      int64   `json:"chunks"`
	Source      string  `json:"source,omitempty"`
}

// infoDelta describes a delta from its header and index.
func (a *app) infoDelta(o *opener, path string) error {
	d, err := o.OpenDelta(path)
	if err != nil {
		return err
	}
	id := d.ID()
	info := deltaInfo{
		Filename: path, Format: formatDelta, ActualSize: d.Size(), Version: d.Header.Version, ID: id.String(),
		Consistency: string(d.Header.Consistency), Instant: d.Header.Instant, Machine: d.Header.Machine, Payload: d.Payload(),
	}
	for i, s := range d.Header.Streams {
		t := d.Totals()[i]
		line := streamInfo{Name: s.Name, VirtualSize: s.Size, Full: s.Full, To: s.To, Data: t.Data, Zero: t.Zero, Checked: t.Checked, Chunks: t.Chunks, Source: s.Source}
		if s.From != nil {
			line.From, line.FromSize = &s.From.Point, &s.From.Size
		}
		info.Streams = append(info.Streams, line)
	}
	if a.json {
		return writeJSON(a.Stdout, info)
	}
	w := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	row := func(key, format string, args ...any) {
		fmt.Fprintf(w, "%s:\t%s\n", key, fmt.Sprintf(format, args...))
	}
	row("delta", "%s", text.Printable(path))
	row("format", "%s, version %d", formatDelta, info.Version)
	row("size", "%s (%s before compression)", text.Size(info.ActualSize), text.Size(info.Payload))
	row("id", "%s", info.ID)
	row("consistency", "%s: %s", info.Consistency, levels[d.Header.Consistency].long)
	if info.Instant != nil {
		row("instant", "%s", info.Instant.UTC().Format(text.TimeLayout))
	}
	if info.Machine != "" {
		row("machine", "%s", info.Machine)
	}
	for i, s := range d.Header.Streams {
		printStream(row, s, d.Totals()[i])
	}
	return w.Flush()
}

func printStream(row func(key, format string, args ...any), s cbt.Stream, t cbt.Totals) {
	row("stream", "%s", text.Printable(s.Name))
	row("  virtual size", "%s (%d bytes)", text.Size(s.Size), s.Size)
	if s.Source != "" {
		row("  source", "%s", s.Source)
	}
	switch {
	case s.Full:
		row("  from", "nothing: full")
	case s.From.Point == "":
		row("  from", "an image that was not frozen, of %d bytes", s.From.Size)
	default:
		row("  from", "%s, of %d bytes", s.From.Point, s.From.Size)
	}
	if s.To == "" {
		row("  to", "no point: a tip, nothing can build on it")
	} else {
		row("  to", "%s", s.To)
	}
	row("  holds", "%s of data (%s checked), %s of zeros", text.Size(t.Data), text.Size(t.Checked), text.Size(t.Zero))
}
