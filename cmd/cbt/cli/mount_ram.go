package cli

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"cbt/internal/text"
	"cbt/internal/tree"
	"cbt/qcow2/vmstate"
	"cbt/sparse"
)

// openState is the saved state of a machine, and what is open for it alone.
type openState struct {
	*machine
	o       *opener
	guard   func(sparse.View) sparse.View
	problem error // why there is no more than the state as it was saved
}

// opened notes the state that was opened. What cannot be read as one can be shown
// as it is; an error of the system is none of the state's.
func (s *openState) opened(m *machine, err error) error {
	var errno syscall.Errno
	if err != nil && m != nil && m.src != nil && m.offset == 0 && !errors.As(err, &errno) && !errors.Is(err, context.Canceled) {
		s.problem, err = err, nil
	}
	s.machine = m
	return err
}

// Close closes the state.
func (s *openState) Close() error { return s.o.Close() }

// Files of RAM besides the blocks.
const (
	coreFile     = "core.elf"
	physicalFile = "physical.raw"
	streamFile   = "vmstate"
)

// state is the tree of a saved machine state.
func (m *mounting) state(ref string, opt refOptions, t time.Time) *tree.Dir {
	i := &instant{m: m, name: ref, time: t}
	i.ram = func() (*openState, error) {
		o, err := m.newOpener()
		if err != nil {
			return nil, err
		}
		s := &openState{o: o}
		if err = s.opened(o.openMachine(m.ctx, ref, opt)); err != nil {
			_ = o.Close()
			return nil, err
		}
		err = s.guardBy(m.ctx, &source{Ref: ref, Format: formatState, recheck: s.machine.recheck})
		return s, err
	}
	return one("", activeDir, t, i.dir())
}

// snapshotState opens the state that was saved with a snapshot, anew: it is large, and
// goes when nobody reads it.
func (m *mounting) snapshotState(q *qcow2Tree, n int) (*openState, error) {
	src, err := q.source(n)
	if err != nil {
		return nil, err
	}
	o, err := m.newOpener()
	if err != nil {
		return nil, err
	}
	s := &openState{o: o}
	if err = s.opened(o.machineOf(m.ctx, src)); err == nil {
		var view sparse.View
		view, err = q.o.guarded(m.ctx, src)
		s.guard = guardLike(view)
	}
	if err != nil {
		_ = o.Close()
		return nil, err
	}
	return s, nil
}

// guardBy has all that is read of the state looked after like s, of the same
// opener.
func (s *openState) guardBy(ctx context.Context, src *source) error {
	src.View = sparse.Zeros(0)
	v, err := s.o.guarded(ctx, src)
	if err != nil {
		_ = s.o.Close()
		return err
	}
	s.guard = guardLike(v)
	return nil
}

// guardLike looks after views as a view that opener.guarded made is.
func guardLike(v sparse.View) func(sparse.View) sparse.View {
	return func(w sparse.View) sparse.View {
		if g, ok := v.(*guardedView); ok {
			return &guardedView{w, g.guard}
		}
		return w
	}
}

// memory is the directory of RAM: the blocks, and what is made of them.
func (i *instant) memory() *tree.Dir {
	return &tree.Dir{Time: i.time, List: func(ctx context.Context) ([]tree.Entry, error) {
		s, release, err := i.m.states.Get(ctx, i, i.ram)
		if err != nil {
			return nil, err
		}
		defer release()
		var entries []tree.Entry
		add := func(name string, size, stored int64, open func(*openState) (sparse.View, error)) {
			entries = append(entries, tree.Entry{Name: name, File: &tree.File{
				Time: i.time, Size: size, Stored: min(size, stored),
				Open: func(ctx context.Context) (*tree.Handle, error) {
					s, release, err := i.m.states.Get(ctx, i, i.ram)
					if err != nil {
						return nil, err
					}
					v, err := open(s)
					if err != nil {
						release()
						return nil, fmt.Errorf("%s: %w", i.name, err)
					}
					return &tree.Handle{View: s.guard(v), Release: release}, nil
				},
			}})
		}
		asSaved := func(s *openState) (sparse.View, error) { return sparse.Plain(s.src, s.size), nil }
		if s.problem != nil {
			i.m.log.Warnf("%s: of its RAM only %s: %v", i.name, streamFile, s.problem)
			add(streamFile, s.size, s.size, asSaved)
			return entries, nil
		}
		stored := int64(0)
		var named []tree.Named
		var blocks []*vmstate.Block
		for _, b := range s.Blocks {
			if !b.Shared {
				named, blocks = append(named, tree.Named{Name: b.Name, ID: "ram"}), append(blocks, b)
			}
		}
		for n, name := range tree.Names(named, "") {
			b := blocks[n]
			if name == coreFile || name == physicalFile || name == streamFile {
				name += "%~ram"
			}
			pages := b.Stored() * s.PageSize
			if s.streams != nil {
				pages = b.Size() // of a delta: which pages it has would take reading it
			}
			add(name, b.Size(), pages, func(s *openState) (sparse.View, error) {
				b := s.Block(b.Name)
				if b == nil {
					return nil, fmt.Errorf("has no block %s any more", text.Printable(name))
				}
				return s.ram(b)
			})
			stored += pages
		}
		if s.src != nil && s.offset == 0 {
			add(streamFile, s.size, s.size, asSaved)
		}
		for _, made := range []struct {
			name string
			open func(*openState) (sparse.View, error)
		}{{coreFile, i.core}, {physicalFile, i.physical}} {
			v, err := made.open(s)
			if err != nil {
				i.m.log.Warnf("%s: no %s: %v", i.name, made.name, err)
				continue
			}
			add(made.name, v.Size(), stored, made.open)
		}
		return entries, nil
	}}
}

// core is the RAM as a core file.
func (i *instant) core(s *openState) (sparse.View, error) {
	ranges, err := s.RAMRanges(i.m.opt.machine)
	if err != nil {
		return nil, err
	}
	c, err := s.Core(ranges, s.ram)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// physical is physical memory from address 0 on.
func (i *instant) physical(s *openState) (sparse.View, error) {
	ranges, err := s.RAMRanges(i.m.opt.machine)
	if err != nil {
		return nil, err
	}
	return s.Flat(ranges, s.ram)
}
