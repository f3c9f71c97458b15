package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/qcow2/vmstate"
	"cbt/sparse"
)

type ramDiffOptions struct {
	source         openerOptions
	oldRef, newRef refOptions
	chain          store.ChainOptions
}

func newRAMDiffCommand(a *app) *cobra.Command {
	opt := &ramDiffOptions{}
	c := &cobra.Command{
		Use:   "diff A B",
		Short: "list the pages of RAM that differ",
		Long: `diff lists the pages of RAM that differ between two saved states of a machine, by
QEMU's RAM blocks, and how many there are in each.`,
		Example: `  cbt ram diff disk.qcow2@monday disk.qcow2@tuesday
  cbt ram diff --json mon.save tuesday.cbt`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.WrongBaseCode, fail.BusyCode),
		Args:        wantArgs("A", "B"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ramDiff(c.Context(), args[0], args[1], opt)
		},
	}
	flags := c.Flags()
	opt.source.addFlags(flags)
	opt.oldRef.addFlags(flags, "old-", "A")
	opt.newRef.addFlags(flags, "new-", "B")
	addChainFlag(&opt.chain, flags)
	return c
}

// pageRun is pages of a block that differ, one behind another.
type pageRun struct {
	Block  string `json:"block"`
	Start  int64  `json:"start"` // bytes
	Length int64  `json:"length"`
	Zero   bool   `json:"zero"` // in B
}

// blockTotal is what differs in a block.
type blockTotal struct {
	Block   string `json:"block"`
	Size    int64  `json:"size"`               // in B, or in A if it is only there
	Pages   int64  `json:"pages"`              // that differ
	OldSize *int64 `json:"old-size,omitempty"` // in A, if that is another
	Only    string `json:"only,omitempty"`     // "a" or "b"
}

func (a *app) ramDiff(ctx context.Context, refA, refB string, opt *ramDiffOptions) error {
	o, err := a.newOpener(opt.source)
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	o.chainFrom(opt.chain)
	o.together = true
	img, err := o.openMachine(ctx, refB, opt.newRef)
	if err != nil {
		return err
	}
	old, err := o.openMachine(ctx, refA, opt.oldRef)
	if err != nil {
		return err
	}
	o.together = false
	if err := o.index(ctx); err != nil {
		return err
	}
	if old.MachineType != img.MachineType {
		a.Warnf("the machine was a %s and is a %s", text.Printable(old.MachineType), text.Printable(img.MachineType))
	}
	out := &pagePrinter{w: bufio.NewWriter(a.Stdout), json: a.json}
	totals, err := out.blocks(ctx, old, img)
	if err != nil {
		return err
	}
	for _, m := range []*machine{old, img} {
		if err := m.changed(); err != nil {
			return err
		}
	}
	return out.end(totals)
}

type pagePrinter struct {
	w     *bufio.Writer
	json  bool
	count int
}

// blocks prints what differs in all blocks.
func (p *pagePrinter) blocks(ctx context.Context, old, img *machine) (totals []blockTotal, err error) {
	for _, b := range img.Blocks {
		t := blockTotal{Block: b.Name, Size: b.Size()}
		was := old.Block(b.Name)
		switch {
		case was == nil:
			t.Only, t.Pages = "b", b.Pages()
		case b.Shared || was.Shared:
			return nil, fail.Usage("block %s is not in both states (x-ignore-shared)", text.Printable(b.Name))
		default:
			if was.Size() != b.Size() {
				n := was.Size()
				t.OldSize = &n
			}
			if t.Pages, err = p.block(ctx, old, img, was, b); err != nil {
				return nil, err
			}
		}
		totals = append(totals, t)
	}
	for _, b := range old.Blocks {
		if img.Block(b.Name) == nil {
			totals = append(totals, blockTotal{Block: b.Name, Size: b.Size(), Pages: b.Pages(), Only: "a"})
		}
	}
	return totals, nil
}

// block prints the pages of one block that differ, and counts them.
func (p *pagePrinter) block(ctx context.Context, old, img *machine, was, is *vmstate.Block) (pages int64, err error) {
	v, err := old.ram(was)
	if err != nil {
		return 0, err
	}
	w, err := img.ram(is)
	if err != nil {
		return 0, err
	}
	size := img.PageSize
	var run pageRun
	flush := func() error {
		if run.Length == 0 {
			return nil
		}
		pages += run.Length / size
		return p.print(run)
	}
	for e, err := range sparse.Compare(v, w, 0, max(v.Size(), w.Size())) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return 0, err
		}
		start, end := e.Off/size*size, (e.End()+size-1)/size*size
		zero := e.Kind.ReadsZero() && start == e.Off && end == e.End()
		if start < run.Start+run.Length && run.Length > 0 {
			start = run.Start + run.Length // part of a page that is named already
		}
		if start >= end {
			continue
		}
		if start == run.Start+run.Length && zero == run.Zero && run.Length > 0 {
			run.Length += end - start
			continue
		}
		if err := flush(); err != nil {
			return 0, err
		}
		run = pageRun{is.Name, start, end - start, zero}
	}
	return pages, flush()
}

func (p *pagePrinter) print(run pageRun) error {
	p.count++
	if !p.json {
		if p.count == 1 {
			fmt.Fprintf(p.w, "%16s %16s  %s\n", "start", "length", "block")
		}
		_, err := fmt.Fprintf(p.w, "%#16x %#16x  %s\n", run.Start, run.Length, text.Printable(run.Block))
		return err
	}
	front := ",\n    "
	if p.count == 1 {
		front = "{\n  \"pages\": [\n    "
	}
	text, err := json.Marshal(run)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.w, "%s%s", front, text)
	return err
}

// end prints the totals.
func (p *pagePrinter) end(totals []blockTotal) error {
	if p.json {
		if p.count == 0 {
			fmt.Fprint(p.w, "{\n  \"pages\": [")
		}
		text, err := json.MarshalIndent(totals, "  ", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(p.w, "\n  ],\n  \"blocks\": %s\n}\n", text)
		return p.w.Flush()
	}
	if p.count > 0 {
		fmt.Fprintln(p.w)
	}
	t := tabwriter.NewWriter(p.w, 0, 8, 2, ' ', 0)
	fmt.Fprint(t, "BLOCK\tSIZE\tPAGES THAT DIFFER\n")
	for _, b := range totals {
		note := ""
		switch {
		case b.Only != "":
			note = " (only in " + map[string]string{"a": "A", "b": "B"}[b.Only] + ")"
		case b.OldSize != nil:
			note = " (had " + text.Size(*b.OldSize) + ")"
		}
		fmt.Fprintf(t, "%s\t%s\t%d%s\n", text.Printable(b.Block), text.Size(b.Size), b.Pages, note)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return p.w.Flush()
}
