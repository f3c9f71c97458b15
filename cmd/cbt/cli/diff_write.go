package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/text"
	"cbt/sparse"
)

// writeDelta writes the delta of all disks to -o.
func (a *app) writeDelta(ctx context.Context, o *opener, disks []disk, opt *diffOptions) error {
	start := time.Now()
	job, err := a.newDeltaJob(disks, opt)
	if err != nil {
		return err
	}
	out, commit, abort, err := a.output(opt.out)
	if err != nil {
		return err
	}
	defer abort()
	err = job.write(ctx, out)
	if err == nil {
		err = commit()
	}
	if wrong := (*cbt.SpotCheckError)(nil); errors.As(err, &wrong) {
		return fail.Findings("%w: no delta is written; --method content compares everything", err)
	}
	if err != nil {
		return err
	}
	return a.reportDelta(o, job, time.Since(start))
}

// deltaJob is a delta on its way: what its header says, where its streams come
// from, and what came of it.
type deltaJob struct {
	app     *app
	opt     *diffOptions
	disks   []disk
	header  cbt.Header
	sources []cbt.Source
	sum     cbt.Summary
	spot    int64 // bytes that were spot-checked
}

// newDeltaJob warns of what nothing can build on, and refuses what is no base.
func (a *app) newDeltaJob(disks []disk, opt *diffOptions) (*deltaJob, error) {
	h := cbt.Header{Version: cbt.Version, Consistency: cbt.Consistency(opt.consistency), Instant: instantOf(disks)}
	if slices.ContainsFunc(disks, func(d disk) bool { return d.ram }) {
		h.Consistency = cbt.Full
	}
	h.Machine = opt.machine
	for _, d := range disks {
		h.Machine = cmp.Or(h.Machine, d.img.machineName(), d.old.machineName())
	}
	warned := map[string]bool{}
	var sources []cbt.Source
	for _, d := range disks {
		s := cbt.Stream{Name: d.stream(), Size: d.img.View.Size(), To: d.img.Point, Full: d.old == nil}
		if !d.ram {
			s.Source = d.img.identity()
		}
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
				return nil, fail.WrongBase("%s: is no base: it was made from an image that was not frozen, so nothing can build on it", d.old.Ref)
			case d.old.Point == "" && !warned[d.old.Ref]:
				warned[d.old.Ref] = true
				a.Warnf("%s: has no point, because it is not frozen: only --assume-base will apply this delta", d.old.Ref)
			}
		}
		if s.To == "" && !warned[d.img.Ref] {
			warned[d.img.Ref] = true
			a.Warnf("%s: is not frozen: nothing can build on this delta (take a snapshot and name that)%s", d.img.Ref, d.img.freezeHint())
		}
		h.Streams = append(h.Streams, s)
		sources = append(sources, src)
	}
	if err := h.Validate(); err != nil {
		return nil, fail.Usage("%w", err)
	}
	return &deltaJob{app: a, opt: opt, disks: disks, header: h, sources: sources}, nil
}

// write writes all of the delta to out. Before the end of it, which makes it
// whole, a sample is compared, and the sources are looked at again.
func (j *deltaJob) write(ctx context.Context, out io.Writer) error {
	w := bufio.NewWriterSize(out, 1<<20)
	p := j.app.Start(j.opt.command, before(j.header.Streams, len(j.header.Streams)))
	defer p.Finish()
	var err error
	j.sum, err = cbt.Write(ctx, w, j.header, j.sources, cbt.Options{
		Workers:  j.opt.workers,
		NoRefine: j.opt.refine == "off",
		Progress: func(stream int, done int64) {
			p.Set(before(j.header.Streams, stream) + done)
		},
		Finish: func() (err error) {
			if j.spot, err = spotCheck(ctx, j.disks, j.opt); err != nil {
				return err
			}
			for _, d := range j.disks {
				if err := d.recheck(); err != nil {
					return err
				}
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	return w.Flush()
}

// instantOf is when the newest of the disks was frozen, or written to; nil if a
// disk tells neither, and no snapshot the time of all.
func instantOf(disks []disk) *time.Time {
	var last time.Time
	untold := slices.ContainsFunc(disks, func(d disk) bool { return d.img.Instant.IsZero() })
	for _, d := range disks {
		if untold && d.img.written {
			continue
		}
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
	f, err := a.audit.Create(path, false)
	if errors.Is(err, fs.ErrExist) {
		return nil, nil, nil, fail.Usage("%s: exists already, and -o never replaces a file", path)
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
	budget, err := text.ParseSize(opt.spotCheck)
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

func (a *app) reportDelta(o *opener, j *deltaJob, took time.Duration) error {
	sum := j.sum
	result := writtenDelta{Delta: j.opt.out, ID: sum.ID.String(), Size: sum.Size, Payload: sum.Payload, Read: o.BytesRead(), Streams: j.written()}
	if a.json && j.opt.out != stdinName {
		return writeJSON(a.Stdout, result)
	}
	name := text.Printable(j.opt.out)
	if j.opt.out == stdinName {
		name = "stdout"
	}
	a.Notef("%s: %s", name, j.summary(o, took))
	a.Debugf("%d bytes written, sha256 %s", sum.Size, result.ID)
	return nil
}

func (j *deltaJob) written() (list []writtenStream) {
	for i, d := range j.disks {
		t := j.sum.Streams[i]
		list = append(list, writtenStream{
			Name: d.stream(), Size: d.img.View.Size(), Full: d.old == nil, Method: d.method.name,
			Data: t.Data, Zero: t.Zero, Checked: t.Checked, Tip: d.img.Point == "",
		})
	}
	return list
}

// summary says what was written, and what that took.
func (j *deltaJob) summary(o *opener, took time.Duration) string {
	var data, zero int64
	for _, t := range j.sum.Streams {
		data += t.Data
		zero += t.Zero
	}
	str := j.disks[0].summary(false)
	count := 0
	for _, d := range j.disks {
		if !d.ram {
			count++
		}
	}
	switch {
	case count == 0 && j.disks[0].old == nil:
		str = "all of the RAM of " + j.disks[0].img.Ref
	case count > 1:
		str = text.Count(count, "disk")
	}
	if count > 0 && count < len(j.disks) {
		str += " and RAM"
	}
	return fmt.Sprintf("%s of changes (and %s of zeros) in a delta of %s, by %s; %s read, %s spot-checked, %s",
		text.Size(data), text.Size(zero), text.Size(j.sum.Size), str, text.Size(o.BytesRead()), text.Size(j.spot), took.Round(time.Millisecond))
}
