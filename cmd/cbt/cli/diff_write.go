package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"cbt/cbt"
	"cbt/internal/outfile"
	"cbt/sparse"
)

// writeDelta writes the delta of all disks to -o.
func (a *app) writeDelta(ctx context.Context, o *opener, disks []disk, opt *diffOptions) error {
	start := time.Now()
	h := cbt.Header{Version: cbt.Version, Consistency: cbt.Consistency(opt.consistency), Instant: instantOf(disks)}
	if slices.ContainsFunc(disks, func(d disk) bool { return d.ram }) {
		h.Consistency = cbt.Full
	}
	warned := map[string]bool{}
	var sources []cbt.Source
	var total int64
	for _, d := range disks {
		s := cbt.Stream{Name: d.stream(), Size: d.img.View.Size(), To: d.img.Point, Full: d.old == nil}
		src := cbt.Source{New: d.img.View}
		if d.old != nil {
			s.From = &cbt.Base{Point: d.old.Point, Size: d.old.View.Size()}
			src.Old = d.old.View
			src.Changed = d.method.changed(0, s.Size)
			if opt.refine == "off" && d.method.exact != nil {
				src.Changed = sparse.Clip(d.method.exact(), 0, s.Size)
			}
			switch {
			case d.old.Point == "" && d.old.Format == formatDelta:
				return wrongBase("%s: is no base: it was made from an image that was not frozen, so nothing can build on it", d.old.Ref)
			case d.old.Point == "" && !warned[d.old.Ref]:
				warned[d.old.Ref] = true
				a.warnf("%s: has no point, because it is not frozen: only --assume-base will apply this delta", d.old.Ref)
			}
		}
		if s.To == "" && !warned[d.img.Ref] {
			warned[d.img.Ref] = true
			a.warnf("%s: is not frozen: nothing can build on this delta (take a snapshot and name that)", d.img.Ref)
		}
		h.Streams = append(h.Streams, s)
		sources = append(sources, src)
		total += s.Size
	}
	if err := h.Validate(); err != nil {
		return usageErrorf("%w", err)
	}

	out, commit, abort, err := a.output(opt.out)
	if err != nil {
		return err
	}
	defer abort()
	w := bufio.NewWriterSize(out, 1<<20)
	p := a.startProgress("diff", total)
	defer p.finish()
	var spot int64
	sum, err := cbt.Write(ctx, w, h, sources, cbt.Options{
		Workers:  opt.workers,
		NoRefine: opt.refine == "off",
		Progress: func(stream int, done int64) {
			p.set(before(h.Streams, stream) + done)
		},
		Finish: func() (err error) {
			if spot, err = spotCheck(ctx, disks, opt); err != nil {
				return err
			}
			for _, d := range disks {
				if err := d.recheck(); err != nil {
					return err
				}
			}
			return nil
		},
	})
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = commit()
	}
	p.finish()
	if wrong := (*cbt.SpotCheckError)(nil); errors.As(err, &wrong) {
		return findings("%w: no delta is written; --method content compares everything", err)
	}
	if err != nil {
		return err
	}
	return a.reportDelta(o, disks, opt, sum, spot, time.Since(start))
}

// instantOf is when the newest of the disks was frozen.
func instantOf(disks []disk) *time.Time {
	var last time.Time
	for _, d := range disks {
		if d.img.Instant.After(last) {
			last = d.img.Instant.UTC()
		}
	}
	if last.IsZero() {
		return nil
	}
	return &last
}

func before(streams []cbt.Stream, n int) int64 {
	var sum int64
	for _, s := range streams[:n] {
		sum += s.Size
	}
	return sum
}

// output opens -o: stdout, or a file that appears when commit is called.
func (a *app) output(path string) (w io.Writer, commit func() error, abort func(), err error) {
	if path == stdinName {
		return a.Stdout, a.syncStdout, func() {}, nil
	}
	f, err := outfile.Create(path, false)
	if errors.Is(err, fs.ErrExist) {
		return nil, nil, nil, usageErrorf("%s: exists already, and -o never replaces a file", path)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	return f, f.Commit, f.Abort, nil
}

// spotCheck compares a sample of what metadata calls unchanged.
func spotCheck(ctx context.Context, disks []disk, opt *diffOptions) (int64, error) {
	if opt.spotCheck == "off" {
		return 0, nil
	}
	budget, err := parseSize(opt.spotCheck)
	if err != nil {
		return 0, err
	}
	var compared int64
	for _, d := range disks {
		if d.old == nil || !d.method.trusted {
			continue
		}
		n, err := cbt.SpotCheck(ctx, d.old.View, d.img.View, d.method.changed, budget/int64(len(disks)))
		compared += n
		if err != nil {
			return compared, fmt.Errorf("%s: %w", d.img.Ref, err)
		}
	}
	return compared, nil
}

// written is the result of diff -o with --json.
type writtenDelta struct {
	Delta   string          `json:"delta"`
	ID      string          `json:"id"`
	Size    int64           `json:"size"`
	Payload int64           `json:"payload"`
	Read    int64           `json:"read"`
	Streams []writtenStream `json:"streams"`
}

type writtenStream struct {
	Name    string `json:"name"`
	Size    int64  `json:"size"`
	Full    bool   `json:"full"`
	Method  string `json:"method,omitempty"`
	Data    int64  `json:"data"`
	Zero    int64  `json:"zero"`
	Checked int64  `json:"checked"`
	Tip     bool   `json:"tip"`
}

func (a *app) reportDelta(o *opener, disks []disk, opt *diffOptions, sum cbt.Summary, spot int64, took time.Duration) error {
	result := writtenDelta{Delta: opt.out, ID: fmt.Sprintf("%x", sum.ID[:]), Size: sum.Size, Payload: sum.Payload, Read: o.BytesRead()}
	var data, zero int64
	for i, d := range disks {
		t := sum.Streams[i]
		result.Streams = append(result.Streams, writtenStream{
			Name: d.stream(), Size: d.img.View.Size(), Full: d.old == nil, Method: d.method.name,
			Data: t.Data, Zero: t.Zero, Checked: t.Checked, Tip: d.img.Point == "",
		})
		data += t.Data
		zero += t.Zero
	}
	if a.json && opt.out != stdinName {
		return writeJSON(a.Stdout, result)
	}
	text := disks[0].summary(false)
	count := 0
	for _, d := range disks {
		if !d.ram {
			count++
		}
	}
	switch {
	case count == 0 && disks[0].old == nil:
		text = "all of the RAM of " + disks[0].img.Ref
	case count > 1:
		text = countOf(count, "disk")
	}
	if count > 0 && count < len(disks) {
		text += " and RAM"
	}
	name := printable(opt.out)
	if opt.out == stdinName {
		name = "stdout"
	}
	a.notef("%s: %s of changes (and %s of zeros) in a delta of %s, by %s; %s read, %s spot-checked, %s",
		name, formatSize(data), formatSize(zero), formatSize(sum.Size), text, formatSize(o.BytesRead()), formatSize(spot), took.Round(time.Millisecond))
	a.debugf("%d bytes written, sha256 %s", sum.Size, result.ID)
	return nil
}
