package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/store"
	"cbt/qcow2"
	"cbt/sparse"
)

type mapOptions struct {
	source openerOptions
	ref    refOptions
	chain  store.ChainOptions
	offset sizeValue
	length sizeValue
}

func newMapCommand(a *app) *cobra.Command {
	opt := &mapOptions{}
	c := &cobra.Command{
		Use:   "map REF",
		Short: "list the extents of an image",
		Long: `map lists what holds an image: for each run of bytes its kind (data, zero: known
to read as zeros, hole: nothing is stored, unknown: in a backing file that
--backing none leaves out), how deep in the backing chain it
lies, and where in that file. With --json it is an array with the keys of
qemu-img map --output=json. No guest data are read.`,
		Example: `  cbt map disk.qcow2@monday
  cbt map --json disk.qcow2`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.WrongBaseCode, fail.BusyCode),
		Args:        wantArgs("REF"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.mapImage(c.Context(), args[0], opt)
		},
	}
	flags := c.Flags()
	opt.source.addFlags(flags)
	opt.ref.addFlags(flags, "", "REF")
	addChainFlag(&opt.chain, flags)
	flags.Var(&opt.offset, "offset", "start at this byte (64K, 1G, ...)")
	flags.Var(&opt.length, "length", "list this many bytes (default: up to the end)")
	return c
}

func (a *app) mapImage(ctx context.Context, ref string, opt *mapOptions) error {
	o, err := a.newOpener(opt.source)
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	o.chainFrom(opt.chain)
	src, err := o.open(ctx, ref, opt.ref)
	if err != nil {
		return err
	}
	defer src.Close()
	off, n, err := rangeOf(src, opt.offset, opt.length)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(a.Stdout)
	print := printMapTable
	if a.json {
		print = printMapJSON
	}
	if err := print(out, rowsUntil(ctx, mapRows(src, off, n))); err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return src.Recheck()
}

type mapSeq = iter.Seq2[qcow2.MapExtent, error]

// mapRows are the rows of any image; those of a raw one as qemu-img has them.
func mapRows(src *source, off, n int64) mapSeq {
	if v, ok := src.View.(*qcow2.View); ok {
		return v.Map(off, n)
	}
	return func(yield func(qcow2.MapExtent, error) bool) {
		for e, err := range src.View.Extents(off, n) {
			data := !e.Kind.ReadsZero()
			row := qcow2.MapExtent{Start: e.Off, Length: e.Len, Present: true, Zero: !data, Data: data, Offset: e.Off}
			if src.Format != formatRaw {
				row.Present, row.Offset = e.Kind != sparse.Hole, -1
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

// rowsUntil ends rows with an error when ctx is cancelled.
func rowsUntil(ctx context.Context, rows mapSeq) mapSeq {
	return func(yield func(qcow2.MapExtent, error) bool) {
		for m, err := range rows {
			if err == nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

func printMapJSON(w io.Writer, rows mapSeq) error {
	before := "["
	for m, err := range rows {
		if err != nil {
			return err
		}
		fmt.Fprintf(w, `%s{ "start": %d, "length": %d, "depth": %d, "present": %t, "zero": %t, "data": %t, "compressed": %t`,
			before, m.Start, m.Length, m.Depth, m.Present, m.Zero, m.Data, m.Compressed)
		if m.Unknown {
			fmt.Fprint(w, `, "unknown": true`)
		}
		if m.Offset >= 0 {
			fmt.Fprintf(w, `, "offset": %d`, m.Offset)
		}
		if _, err := io.WriteString(w, "}"); err != nil {
			return err
		}
		before = ",\n"
	}
	if before == "[" {
		_, err := io.WriteString(w, "[]\n")
		return err
	}
	_, err := io.WriteString(w, "]\n")
	return err
}

func printMapTable(w io.Writer, rows mapSeq) error {
	const line = "%16v  %16v  %-10v  %5v  %16v\n"
	if _, err := fmt.Fprintf(w, line, "START", "LENGTH", "KIND", "DEPTH", "OFFSET"); err != nil {
		return err
	}
	for m, err := range rows {
		if err != nil {
			return err
		}
		offset := "-"
		if m.Offset >= 0 {
			offset = fmt.Sprint(m.Offset)
		}
		if _, err := fmt.Fprintf(w, line, m.Start, m.Length, mapKind(m), m.Depth, offset); err != nil {
			return err
		}
	}
	return nil
}

func mapKind(m qcow2.MapExtent) string {
	switch {
	case m.Unknown:
		return "unknown"
	case m.Compressed:
		return "compressed"
	case m.Data:
		return "data"
	case m.Present:
		return "zero"
	}
	return "hole"
}
