package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/text"
	"cbt/qcow2"
	"cbt/sparse"
)

type checkOptions struct {
	source openerOptions
	ref    refOptions
}

func newCheckCommand(a *app) *cobra.Command {
	opt := &checkOptions{}
	c := &cobra.Command{
		Use:   "check REF",
		Short: "check the structure of an image",
		Long: `check reads all metadata of a qcow2 image, of every snapshot in it, and lists all
faults with their offsets: corruptions, where metadata contradict themselves or
the format, and leaks, which are space in use for nothing. It changes nothing.
Backing files and guest data are not read.

Of a thin pool that is not in use, lvm:VG/POOL, or of the metadata alone that
--thin-metadata names, it checks trees, space maps and records: what thin_check
finds, and cycles, keys and blocks that it passes over.`,
		Example: `  cbt check disk.qcow2
  cbt check --pv disk.raw lvm:vg0/pool
  cbt check --thin-metadata tmeta.bin
  cbt check --json disk.qcow2`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.FindingsCode, fail.BusyCode),
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 && opt.source.ThinMetadata != "" {
				return nil
			}
			return wantArgs("REF")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			return a.check(c.Context(), strings.Join(args, ""), opt)
		},
	}
	opt.source.addFormatFlag(c.Flags())
	opt.source.volumeOptions.addFlags(c.Flags())
	opt.ref.addPathFlag(c.Flags(), "REF")
	return c
}

func (a *app) check(ctx context.Context, ref string, opt *checkOptions) error {
	o, err := a.newOpener(opt.source)
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	if ok, err := a.checkThin(ctx, o, ref, opt.ref); ok || err != nil {
		return err
	}
	r, f, format, err := o.locateAny(ctx, ref, opt.ref)
	if err != nil {
		return err
	}
	if f != nil {
		o.files = append(o.files, f)
	}
	switch {
	case format == formatDelta:
		return fail.Usage("%s: is a delta: cbt verify checks it", ref)
	case format == formatRaw:
		return fail.Usage("%s: is raw: there is no structure to check", ref)
	case r.byName || r.byID:
		return fail.Usage("%s: a check is of the whole file: name %s alone", ref, r.path)
	}
	if err := o.refuseWritten(f); err != nil {
		return err
	}
	if err := o.hold(&image{file: f}, false); err != nil {
		return err
	}
	out := bufio.NewWriter(a.Stdout)
	list := &faultList{w: out, json: a.json}
	stats, err := qcow2.Check(ctx, f, f.Info.Size, list.addQcow2)
	if fault, ok := headerFault(err); ok && stats == (qcow2.CheckStats{}) {
		list.addQcow2(fault)
		stats.Corruptions, err = 1, nil
	}
	if err == nil || stats != (qcow2.CheckStats{}) {
		list.endQcow2(stats)
		if err := out.Flush(); err != nil {
			return err
		}
	}
	if err == nil {
		err = f.changed()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	if stats.Corruptions+stats.Leaks > 0 {
		return fail.Findings("%s: %s and %s found", ref, count(stats.Corruptions, "corruption"), count(stats.Leaks, "leak"))
	}
	return nil
}

// headerFault makes a finding of damage that left nothing to check: a header
// that is wrong, or tables that are not inside the file. What is no qcow2 image,
// or one of a kind that cbt does not know, is not damaged.
func headerFault(err error) (qcow2.Fault, bool) {
	var bad *sparse.FormatError
	if !errors.As(err, &bad) || slices.Contains([]string{"magic", "version", "incompatible_features"}, bad.Field) {
		return qcow2.Fault{}, false
	}
	what := sparse.FormatError{Field: bad.Field, Off: -1, Value: bad.Value, Msg: bad.Msg, Err: bad.Err}
	return qcow2.Fault{Kind: qcow2.Corruption, Struct: bad.Struct, Off: bad.Off, Guest: -1, Msg: strings.TrimPrefix(what.Error(), ": ")}, true
}

// faultList prints faults as they are found.
type faultList struct {
	w    io.Writer
	json bool
	n    int64
}

// add prints a fault: a line and where that is written, or j.
func (l *faultList) add(line, cite string, j any) {
	if !l.json {
		fmt.Fprintln(l.w, text.OneLine(line))
		if cite != "" {
			fmt.Fprintf(l.w, "    %s\n", text.OneLine(cite))
		}
		return
	}
	before := ",\n"
	if l.n++; l.n == 1 {
		before = "{ \"faults\": [\n"
	}
	str, _ := json.Marshal(j)
	fmt.Fprintf(l.w, "%s%s", before, text.EscapeJSON(string(str)))
}

// end prints the last line, or closes the array and adds what was counted.
func (l *faultList) end(line string, counts map[string]int64) {
	if !l.json {
		fmt.Fprintln(l.w, line)
		return
	}
	if l.n == 0 {
		fmt.Fprint(l.w, `{ "faults": [`)
	}
	rest, _ := json.Marshal(counts)
	fmt.Fprintf(l.w, "],\n%s\n", rest[1:])
}

type faultJSON struct {
	Kind   qcow2.FaultKind `json:"kind"`
	Struct string          `json:"struct"`
	Offset int64           `json:"offset"`
	Length int64           `json:"length,omitempty"`
	Guest  *int64          `json:"guest-offset,omitempty"`
	Msg    string          `json:"message"`
	Cite   string          `json:"cite,omitempty"`
}

func (l *faultList) addQcow2(f qcow2.Fault) {
	j := faultJSON{f.Kind, f.Struct, f.Off, f.Len, nil, f.Msg, f.Cite}
	if f.Guest >= 0 {
		j.Guest = &f.Guest
	}
	l.add(f.String(), f.Cite, j)
}

func (l *faultList) endQcow2(s qcow2.CheckStats) {
	l.end(fmt.Sprintf("%s, %s; %s in %s, %d of %d clusters allocated",
		count(s.Corruptions, "corruption"), count(s.Leaks, "leak"),
		count(s.L2Tables, "L2 table"), count(s.Snapshots, "snapshot"), s.Allocated, s.Total),
		map[string]int64{
			"corruptions": s.Corruptions, "leaks": s.Leaks, "image-end-offset": s.ImageEnd,
			"total-clusters": s.Total, "allocated-clusters": s.Allocated,
			"fragmented-clusters": s.Fragmented, "compressed-clusters": s.Compressed,
		})
}

// count is "no leaks", "1 leak", "2 leaks".
func count(n int64, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
