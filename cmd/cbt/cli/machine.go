package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/ordered"
	"cbt/internal/report"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/qcow2"
	"cbt/qcow2/vmstate"
	"cbt/sparse"
)

// machine is the saved state of a machine: its RAM and its devices.
type machine struct {
	*vmstate.State // of a delta: the RAM of this one reads as zeros, see ram
	ref            string
	point          string // of the state as a whole; empty: not frozen
	instant        time.Time
	clock          time.Duration // of a snapshot: how long the machine had run; 0: not known
	vol            *volume
	src            io.ReaderAt
	size           int64 // bytes of src
	offset         int64 // of the state in src
	inFile         bool  // the end of the file is all that tells its end
	recheck        func() error

	// Of a delta: the streams of the blocks and that of the rest, each at a
	// point of its own.
	streams map[string]*source
}

func ramStream(b *vmstate.Block) string { return "ram/" + b.Name }

// machineOf is the state of the machine that a source was saved with, nil if
// there is none.
func (o *opener) machineOf(ctx context.Context, s *source) (*machine, error) {
	switch view, _ := s.View.(*qcow2.View); {
	case s.machine != nil:
		return s.machine, nil
	case s.chain != nil:
		return o.machineAfter(s.Ref, s.chain)
	case view != nil && view.Snapshot() != nil:
		r, size, err := view.VMState()
		if err != nil || r == nil {
			return nil, refError(s.Ref, err)
		}
		s.machine = &machine{ref: s.Ref, instant: s.Instant, clock: view.Snapshot().VMClock, recheck: s.recheck, point: s.Point, src: r, size: size}
		return s.machine, o.index(ctx, s.machine)
	}
	return nil, nil
}

func refError(ref string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", ref, err)
}

// machineAfter is the state after a delta.
func (o *opener) machineAfter(ref string, c *chainRef) (*machine, error) {
	d := c.delta
	if d.Stream(store.StateStream) < 0 {
		return nil, nil
	}
	m := &machine{ref: ref, streams: map[string]*source{}}
	routes := o.Routes(d, c.opt)
	for i, s := range d.Header.Streams {
		if s.Name != store.StateStream && !strings.HasPrefix(s.Name, "ram/") {
			continue
		}
		view, err := routes.View(d.Ends(), i)
		if err != nil {
			return nil, o.NoChain(d, c.opt, err)
		}
		m.streams[s.Name] = &source{View: view, Ref: ref, Path: d.Name, Format: formatDelta, Point: s.To, stream: s.Name, layers: view.Layers()}
	}
	if d.Header.Instant != nil {
		m.instant = *d.Header.Instant
	}
	rest := m.streams[store.StateStream].View
	var err error
	if m.State, err = vmstate.Open(rest, rest.Size(), o.stateOptions()); err != nil {
		return nil, fmt.Errorf("%s: machine state: %w", ref, err)
	}
	o.machines = append(o.machines, m)
	return m, m.fits()
}

// fits says whether the streams of a delta are those that its state names.
func (m *machine) fits() error {
	blocks := 0
	for _, b := range m.Blocks {
		s := m.streams[ramStream(b)]
		switch {
		case b.Shared && s == nil:
			continue
		case s == nil:
			return fmt.Errorf("%s: has no stream %s, which its machine state names", m.ref, text.Printable(ramStream(b)))
		case s.View.Size() != b.Size():
			return fmt.Errorf("%s: stream %s has %d bytes, and %d in its machine state", m.ref, text.Printable(ramStream(b)), s.View.Size(), b.Size())
		}
		blocks++
	}
	if blocks+1 != len(m.streams) {
		return fmt.Errorf("%s: has %d streams of RAM, and its machine state names %d", m.ref, len(m.streams)-1, blocks)
	}
	return nil
}

// ram is what a block holds.
func (m *machine) ram(b *vmstate.Block) (sparse.View, error) {
	if s := m.streams[ramStream(b)]; s != nil {
		return s.View, nil
	}
	return b, nil
}

// source is one stream of the state: a block, or, if that is nil, all but RAM.
func (m *machine) source(b *vmstate.Block) *source {
	name := store.StateStream
	if b != nil {
		name = ramStream(b)
	}
	if s := m.streams[name]; s != nil {
		return s
	}
	s := &source{Ref: m.ref, Path: m.ref, Format: formatState, Instant: m.instant, stream: name}
	if b == nil {
		s.View, s.recheck = m.Record(), m.recheck
	} else {
		s.View = b
	}
	s.Point = m.pointOf(name)
	return s
}

// pointOf is the point of a stream of the state; empty if it is not frozen.
func (m *machine) pointOf(name string) string {
	switch s := m.streams[name]; {
	case s != nil:
		return s.Point
	case m.point == "":
		return ""
	}
	var times pointTimes
	times.addPoint(m.point)
	return times.complete(point("ram", infile.AppendString(infile.AppendString(infile.AppendString(nil, ramPointV1), store.WithoutTimes(m.point)), name)))
}

// openMachine opens the state that ref names; one that cannot be read as such
// comes with the error. As the user called it one, what
// else it could be does not matter.
func (o *opener) openMachine(ctx context.Context, ref string, opt refOptions) (*machine, error) {
	if opt.Format == "" && o.Format == "" {
		if isState, err := o.startsLikeState(ref, opt); err != nil {
			return nil, err
		} else if isState {
			opt.Format = formatState
		}
	}
	opt.state = true
	s, err := o.open(ctx, ref, opt)
	if err != nil {
		if s != nil {
			return s.machine, err
		}
		return nil, err
	}
	m, err := o.machineOf(ctx, s)
	if m != nil || err != nil {
		return m, err
	}
	if s.vol != nil || s.Format == formatRaw {
		return o.machineIn(ctx, s)
	}
	if s.Format == formatState {
		return nil, fail.Usage("%s: is one block of RAM: name the state alone", text.Printable(ref))
	}
	return nil, fail.Usage("%s: has no machine state: no RAM was saved with it", text.Printable(ref))
}

// openState opens a file that holds a state: a RAM block that is named behind
// an @, or, if opt allows it, the state as a whole.
func (o *opener) openState(ctx context.Context, ref string, r reference, f *file, opt refOptions) (*source, error) {
	o.files = append(o.files, f)
	if err := o.refuseWritten(f); err != nil {
		return nil, err
	}
	if err := o.settle(ctx, f); err != nil {
		return nil, err
	}
	s := &source{View: sparse.Plain(f, f.Info.Size), Ref: ref, Path: r.path, Format: formatState, Instant: f.Info.LastChange(), Point: rawPoint(f.Info), recheck: f.changed}
	if r.byID || !r.byName && !opt.state {
		return nil, fail.Usage("%s: is a saved machine state: %s is a block of its RAM (cbt info names them)", text.Printable(ref), text.Quote(r.path+"@BLOCK"))
	}
	if r.byName {
		o.together = false
	}
	m, err := o.machineIn(ctx, s)
	if err != nil || !r.byName {
		s.machine = m
		return s, err
	}
	b := m.Block(r.want)
	if b == nil {
		return nil, fail.Usage("%s: has no RAM block %s; there are: %s", text.Printable(r.path), text.Printable(r.want), m.blockNames())
	}
	block := m.source(b)
	block.Ref, block.recheck = ref, s.recheck
	return block, nil
}

func (m *machine) blockNames() string {
	var names []string
	for _, b := range m.Blocks {
		names = append(names, text.Printable(b.Name))
	}
	return strings.Join(names, ", ")
}

// startsLikeState says whether ref is a path that holds a state.
func (o *opener) startsLikeState(ref string, opt refOptions) (bool, error) {
	if _, ok, err := o.parseVolumeRef(ref, opt); ok || err != nil {
		return false, err
	}
	r, err := o.parse(ref, opt)
	if err != nil || r.byName || r.byID {
		return false, err
	}
	f, err := openFile(r.path, &o.reads, nil)
	if err != nil {
		return false, err
	}
	defer f.Close()
	format, err := sniff(f, f.Info.Size)
	return format == formatState || format == formatRaw && o.StateOffset.n > 0, err
}

// machineIn reads the state that a file, device or volume begins with.
func (o *opener) machineIn(ctx context.Context, s *source) (*machine, error) {
	m := &machine{ref: s.Ref, instant: s.Instant, recheck: s.recheck, point: s.Point, vol: s.vol, src: s.View, size: s.View.Size(), inFile: true}
	// Of two states, one may begin where its file does.
	if o.StateOffset.n > 0 {
		head := make([]byte, 4)
		if _, err := s.View.ReadAt(head, 0); err != nil || string(head) != "QEVM" && string(head) != "Libv" {
			m.offset = o.StateOffset.n
		}
	}
	return m, o.index(ctx, m)
}

// index reads states to know where each page is, several at a time; with
// opener.together it only notes them for the next call without.
func (o *opener) index(ctx context.Context, machines ...*machine) error {
	o.waiting = append(o.waiting, machines...)
	if o.together {
		return nil
	}
	list := o.waiting
	o.waiting = nil
	total := int64(0)
	for _, m := range list {
		total += m.size
	}
	bar := o.Start("reading RAM", total)
	defer bar.Finish()
	o.machines = append(o.machines, list...)
	return ordered.Map(ctx, 2,
		func(_ context.Context, emit func(*machine) error) error {
			for _, m := range list {
				if err := emit(m); err != nil {
					return err
				}
			}
			return nil
		},
		func(_ context.Context, m *machine) (_ struct{}, err error) {
			r := &stateReader{ctx: ctx, r: m.src, bar: bar}
			opt := o.stateOptions()
			opt.Offset = m.offset
			m.State, err = vmstate.Open(r, m.size, opt)
			r.bar = report.NoBar{} // what is read later belongs to other work
			return struct{}{}, refError(m.ref, err)
		},
		func(struct{}) error { return nil })
}

// stateReader ends with ctx, and shows how far the reading of a state is.
type stateReader struct {
	ctx  context.Context
	r    io.ReaderAt
	bar  report.Bar
	done atomic.Int64
}

func (r *stateReader) ReadAt(p []byte, off int64) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.r.ReadAt(p, off)
	if before, now := r.done.Load(), off+int64(n); now > before && r.done.CompareAndSwap(before, now) {
		r.bar.Add(now - before)
	}
	return n, err
}

func (o *opener) stateOptions() vmstate.Options {
	return vmstate.Options{HeadOnly: o.headOnly, Temp: func() (vmstate.TempFile, error) { return infile.Unnamed(o.spoolDir) }}
}
