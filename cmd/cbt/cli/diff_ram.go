package cli

import (
	"context"
	"fmt"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/store"
	"cbt/internal/text"
)

// What --ram says.
const (
	ramAuto = "auto"
	ramNo   = "no"
	ramOnly = "only"
)

// namesState says whether ref is a saved machine state, which has no disk.
func (o *opener) namesState(ref string, opt refOptions) (bool, error) {
	if _, ok, err := o.parseVolumeRef(ref, opt); err != nil {
		return false, err
	} else if ok {
		return opt.Format == formatState || opt.Format == "" && o.Format == formatState, nil
	}
	r, f, format, err := o.locate(ref, opt)
	if f != nil {
		f.Close()
	}
	return format == formatState && !r.byName && !r.byID, err
}

// statesOnly notes OLD and NEW as machine states, if NEW is one, or if OLD is
// one and nothing but RAM is asked for.
func (opt *diffOptions) statesOnly(ctx context.Context, o *opener, args []string) (bool, error) {
	img, newRef := args[len(args)-1], opt.newRef
	if opt.full {
		newRef = opt.fullRef
	}
	state, err := o.namesState(img, newRef)
	if err != nil {
		return false, err
	}
	if !opt.full {
		old, err := o.namesState(args[0], opt.oldRef)
		switch {
		case err != nil:
			return false, err
		case old && opt.ram == ramOnly:
			state = true
		case old && !state:
			return false, fail.Usage("%s is a saved machine state, and %s is none: --old-state %s goes beside the OLD disk (or --ram only)", text.Printable(args[0]), text.Printable(img), text.Quote(args[0]))
		}
		if state && opt.oldState == "" {
			opt.oldState = args[0]
		}
	}
	if !state {
		return false, nil
	}
	if opt.ram == ramNo {
		return false, fail.Usage("--ram no: %s is nothing but RAM", text.Printable(img))
	}
	if opt.newState != "" {
		return false, fail.Usage("--new-state: %s is a machine state already", text.Printable(img))
	}
	opt.newState, opt.newStateRef, opt.oldStateRef, opt.ram = img, newRef, opt.oldRef, ramOnly
	return true, nil
}

// machines finds the RAM that goes with the disks: that which --new-state names, or
// that of the one NEW that has some.
func (opt *diffOptions) machines(ctx context.Context, o *opener, disks []disk) (old, img *machine, err error) {
	if opt.ram == ramNo {
		return nil, nil, nil
	}
	o.together = true
	if img = opt.newMachine; opt.newState != "" && img == nil {
		if img, err = o.openMachine(ctx, opt.newState, opt.newStateRef); err != nil {
			return nil, nil, err
		}
	}
	if img != nil {
		if err := img.sameClock(disks, opt.source.Force); err != nil {
			return nil, nil, err
		}
	}
	if opt.oldState != "" {
		if old, err = o.openMachine(ctx, opt.oldState, opt.oldStateRef); err != nil {
			return nil, nil, err
		}
	}
	var with *disk
	for i := range disks {
		d := &disks[i]
		m, err := o.machineOf(ctx, d.img)
		if err != nil {
			return nil, nil, fmt.Errorf("%w (--ram no leaves RAM out)", err)
		}
		if m == nil {
			continue
		}
		if opt.newState != "" {
			return nil, nil, stateTwice(d.img)
		}
		if img != nil {
			return nil, nil, fail.Usage("%s and %s both have RAM, and a delta has that of one machine: --ram no leaves it out", with.img.Ref, d.img.Ref)
		}
		img, with = m, d
	}
	if img == nil {
		if opt.ram == ramOnly || opt.oldState != "" {
			return nil, nil, fail.Usage("NEW has no RAM: no machine state was saved with it")
		}
		return nil, nil, nil
	}
	for i := range disks {
		if old != nil || opt.oldState != "" || disks[i].old == nil {
			continue
		}
		if old, err = o.machineOf(ctx, disks[i].old); err != nil {
			return nil, nil, fmt.Errorf("%w (--ram no leaves RAM out)", err)
		}
	}
	o.together = false
	if err = o.index(ctx); err != nil && with != nil && opt.ram != ramOnly && ctx.Err() == nil {
		err = fmt.Errorf("%w (--ram no leaves RAM out)", err)
	}
	return old, img, err
}

// addRAM adds the streams of RAM to the disks.
func (a *app) addRAM(ctx context.Context, o *opener, disks []disk, opt *diffOptions) ([]disk, error) {
	old, img, err := opt.machines(ctx, o, disks)
	if err != nil || img == nil {
		return disks, err
	}
	for _, m := range []*machine{old, img} {
		if err := m.freeze(ctx, opt.source.Frozen); err != nil {
			return nil, err
		}
	}
	if err := img.whole(opt.source.Force); err != nil {
		return nil, err
	}
	if !opt.full {
		why := "OLD has none"
		if old != nil {
			why = old.differs(img)
		}
		if why != "" {
			a.Notef("RAM is stored in full: %s", why)
			old = nil
		}
	}
	if opt.ram == ramOnly {
		disks = nil
	}
	for _, b := range img.Blocks {
		if b.Shared {
			return nil, fmt.Errorf("%s: its RAM block %s is not in the state but in the file that backs it (x-ignore-shared); of a snapshot, --ram no takes the disks alone", img.ref, text.Printable(b.Name))
		}
		h := cbt.Header{Version: cbt.Version, Consistency: cbt.Full, Streams: []cbt.Stream{{Name: ramStream(b), Full: true}}}
		if h.Validate() != nil {
			return nil, fmt.Errorf("%s: its RAM block %s has a name that a delta cannot hold", img.ref, text.Printable(b.Name))
		}
		d := disk{name: ramStream(b), img: img.source(b), ram: true}
		if old != nil {
			d.old = old.source(old.Block(b.Name))
			d.method = contentMethod(d.old.View, d.img.View)
			d.method.text = "pages of RAM"
		}
		disks = append(disks, d)
	}
	return append(disks, disk{name: store.StateStream, img: img.source(nil), ram: true}), nil
}

// freeze finds out at which point a volume is that holds the state.
func (m *machine) freeze(ctx context.Context, frozen bool) (err error) {
	if m != nil && m.vol != nil {
		if m.point, err = m.vol.point(ctx, frozen, nil); err != nil {
			return refError(m.ref, err)
		}
	}
	return nil
}

// whole says whether the end of the state may be missing. That of a snapshot
// is there: the snapshot was entered into its table afterwards.
func (m *machine) whole(force bool) error {
	if err := m.Complete(); err != nil && !force && m.inFile {
		return fmt.Errorf("%s: %w (--force takes it as it is)", m.ref, err)
	}
	return nil
}

// differs says why the RAM of two states cannot be compared page by page.
func (m *machine) differs(n *machine) string {
	switch {
	case m.MachineType != n.MachineType:
		return fmt.Sprintf("the machine was a %s and is a %s", text.Printable(m.MachineType), text.Printable(n.MachineType))
	case m.PageSize != n.PageSize:
		return fmt.Sprintf("pages had %d bytes and have %d", m.PageSize, n.PageSize)
	}
	for _, b := range n.Blocks {
		switch old := m.Block(b.Name); {
		case old == nil:
			return fmt.Sprintf("OLD has no block %s", text.Printable(b.Name))
		case old.Size() != b.Size():
			return fmt.Sprintf("block %s had %d bytes and has %d", text.Printable(b.Name), old.Size(), b.Size())
		case old.Shared:
			return fmt.Sprintf("OLD has nothing of block %s (x-ignore-shared)", text.Printable(b.Name))
		}
	}
	if len(m.Blocks) != len(n.Blocks) {
		return "OLD has more blocks"
	}
	return ""
}
