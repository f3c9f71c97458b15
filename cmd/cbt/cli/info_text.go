package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"cbt/internal/text"
	"cbt/qcow2"
)

func (d *description) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(key, format string, args ...any) {
		fmt.Fprintf(t, "%s:\t%s\n", key, fmt.Sprintf(format, args...))
	}
	row("image", "%s", text.Printable(d.file.Path))
	if s := d.snapshot; s != nil {
		row("snapshot", "%s (id %s) of %s", text.Printable(s.Name), text.Printable(s.ID), s.Date.Format(text.TimeLayout))
	}
	if d.qcow != nil {
		row("format", "%s, compat %s", d.format, compat(d.qcow.Header()))
	} else {
		row("format", "%s", d.format)
	}
	if d.luks {
		row("encryption", "LUKS: what is read and kept are the encrypted bytes")
	}
	row("virtual size", "%s (%d bytes)", text.Size(d.size), d.size)
	if !d.file.Info.Block {
		row("disk size", "%s", text.Size(d.file.Info.Stored))
	}
	if d.qcow != nil {
		d.printQcow2(row)
	}
	if d.machine != nil {
		d.machine.rows(row)
	}
	if d.point != "" {
		row("point", "%s", d.point)
	}
	for _, err := range d.problems {
		row("problem", "%s", text.OneLine(err.Error()))
	}
	if err := t.Flush(); err != nil || d.qcow == nil {
		return err
	}
	if err := d.printSnapshots(w); err != nil {
		return err
	}
	if d.machine != nil {
		return d.machine.tables(w)
	}
	return d.printBitmaps(w)
}

func (d *description) printQcow2(row func(key, format string, args ...any)) {
	h := d.qcow.Header()
	row("cluster size", "%s", text.Size(h.ClusterSize()))
	row("compression", "%s", compression(h))
	row("refcounts", "%d bits", 1<<h.RefcountOrder)
	if method := h.Encryption(); method != "" {
		row("encryption", "%s", method)
	}
	incompatible, compatible, autoclear := d.qcow.FeatureNames()
	var features []string
	for _, name := range append(append(incompatible, compatible...), autoclear...) {
		features = append(features, text.Printable(name))
	}
	if len(features) > 0 {
		row("features", "%s", strings.Join(features, ", "))
	}
	if h.HasDataFile() {
		row("data file", "%s", text.Printable(d.qcow.DataFile()))
	}
	if h.BackingFile != "" {
		format := d.qcow.BackingFormat()
		if format == "" {
			format = "no format named"
		}
		if d.img != nil && d.img.leftOut {
			format += ", left out"
		}
		row("backing file", "%s (%s)", text.Printable(h.BackingFile), text.Printable(format))
	}
	if d.img != nil {
		for b := d.img.backing; b != nil; b = b.backing {
			row("  stands on", "%s, %s, %s", text.Printable(b.file.shown()), b.format, text.Size(b.view.Size()))
		}
	}
}

func (d *description) printSnapshots(w io.Writer) error {
	table := d.qcow.Snapshots()
	if len(table) == 0 || d.snapshot != nil {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprint(t, "\nsnapshots:\n  ID\tNAME\tDATE\tDISK\tRAM\tCLOCK\n")
	for _, s := range table {
		ram := "-"
		if s.VMStateSize > 0 {
			ram = text.Size(int64(min(s.VMStateSize, 1<<63-1)))
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\n", text.Printable(s.ID), text.Printable(s.Name),
			s.Date.Format(text.TimeLayout), text.Size(s.DiskSize), ram, formatClock(s.VMClock))
	}
	return t.Flush()
}

func (d *description) printBitmaps(w io.Writer) error {
	if len(d.bitmaps) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprint(t, "\nbitmaps:\n  NAME\tGRANULARITY\tSTATE\n")
	for _, b := range d.bitmaps {
		fmt.Fprintf(t, "  %s\t%s\t%s\n", text.Printable(b.Name), text.Size(1<<b.Granularity), bitmapState(b))
	}
	return t.Flush()
}

func bitmapState(b qcow2.Bitmap) string {
	switch {
	case b.Flags&qcow2.BitmapInUse != 0:
		return "in use: its bits are not to be trusted"
	case b.Flags&qcow2.BitmapAuto != 0:
		return "recording"
	}
	return "disabled"
}

// formatClock is how long a guest had run: hours, minutes, seconds.
func formatClock(d time.Duration) string {
	ms := uint64(d) / uint64(time.Millisecond)
	return fmt.Sprintf("%02d:%02d:%02d.%03d", ms/3600000, ms/60000%60, ms/1000%60, ms%1000)
}
