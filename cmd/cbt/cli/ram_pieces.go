package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"cbt/internal/text"
	"cbt/qcow2/vmstate"
	"cbt/sparse"
)

// ramPiece is memory that is one behind another in the machine: n bytes of v from
// off on, at addr if that is known.
type ramPiece struct {
	block  string // what messages call v
	v      sparse.View
	off, n int64
	addr   uint64
	known  bool // addr is
}

// findIn opens the memory that ref names: a saved machine, a core file, or the
// bytes of a file. changed says at the end whether it was changed.
func (a *app) findIn(ctx context.Context, ref string, opt *ramFindOptions) (o *opener, pieces []ramPiece, changed func() error, err error) {
	if o, err = a.newOpener(opt.source); err != nil {
		return nil, nil, nil, err
	}
	opened := o
	defer func() {
		if err != nil {
			a.closeOpener(opened)
		}
	}()
	_, volume, err := o.parseVolumeRef(ref, opt.ref)
	if err != nil {
		return nil, nil, nil, err
	}
	if !volume && opt.source.StateOffset.n == 0 {
		if pieces, changed, err = a.memoryIn(o, ref, opt.ref); pieces != nil || err != nil {
			return o, pieces, changed, err
		}
	}
	o.chainFrom(opt.chain)
	m, err := o.openMachine(ctx, ref, opt.ref)
	if err != nil {
		return nil, nil, nil, err
	}
	if pieces, err = a.piecesOf(m, opt.machine); err != nil {
		return nil, nil, nil, err
	}
	return o, pieces, m.changed, nil
}

// memoryIn is the memory in a file that is no saved machine; nil if ref is none.
func (a *app) memoryIn(o *opener, ref string, opt refOptions) ([]ramPiece, func() error, error) {
	f, format, err := o.plainFile(ref, opt)
	if f == nil || err != nil {
		return nil, nil, err
	}
	if format != formatELFCore && format != formatRaw || f.Info.Block {
		return nil, nil, f.Close()
	}
	if format == formatRaw && containers[strings.ToLower(filepath.Ext(f.Path))] != "" {
		return nil, nil, f.Close() // it is named like something else, which is said when it is opened
	}
	o.files = append(o.files, f)
	if err := o.refuseWritten(f); err != nil {
		return nil, nil, err
	}
	raw, err := sparse.OpenRaw(f.File)
	if err != nil {
		return nil, nil, refError(ref, err)
	}
	v := &countedView{raw, f.Count}
	if format == formatRaw {
		a.Notef("%s: is no saved machine: taken for physical memory from address 0 on", text.Printable(ref))
		return []ramPiece{{block: "file", v: v, n: v.Size(), known: true}}, f.changed, nil
	}
	d, err := vmstate.OpenDump(f, f.Info.Size)
	if err != nil {
		return nil, nil, refError(ref, err)
	}
	pieces := []ramPiece{}
	for i, p := range d.Pieces(v) {
		pieces = append(pieces, ramPiece{block: fmt.Sprintf("core/%d", i), v: p.View, n: p.Size(), addr: p.Addr, known: true})
	}
	return pieces, f.changed, nil
}

// piecesOf are all blocks of a saved machine: those parts first that have
// addresses. VGA's hole does not part the RAM: what lies below it can be seen in
// system management mode.
func (a *app) piecesOf(m *machine, machine string) (list []ramPiece, err error) {
	ranges, err := m.RAMRanges(machine)
	if err != nil {
		text := fmt.Sprintf("no physical addresses: %v", err)
		if hint := m.tellMachine(""); hint != "" {
			text += " (" + hint + ")"
		}
		a.Warnf("%s", text)
	}
	known := map[*vmstate.Block]bool{}
	add := func(r vmstate.Range, known bool) error {
		v, err := m.ram(r.Block)
		list = append(list, ramPiece{r.Block.Name, v, r.Off, r.Len, r.Addr, known})
		return err
	}
	for _, r := range ranges {
		known[r.Block] = true
		if n := len(list); n > 0 {
			last := &list[n-1]
			if gap := r.Off - last.off - last.n; last.block == r.Block.Name && gap >= 0 && r.Addr == last.addr+uint64(last.n+gap) {
				last.n += gap + r.Len
				continue
			}
		}
		if err := add(r, true); err != nil {
			return nil, err
		}
	}
	for _, b := range m.Blocks {
		if !known[b] && !b.Shared {
			if err := add(vmstate.Range{Block: b, Len: b.Size()}, false); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}
