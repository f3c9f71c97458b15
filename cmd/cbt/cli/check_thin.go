package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"cbt/internal/fail"
	"cbt/internal/hostlvm"
	"cbt/lvm"
	"cbt/lvm/thin"
)

// checkThin checks the metadata of a thin pool; ok is false if ref is none.
func (a *app) checkThin(ctx context.Context, o *opener, ref string, opt refOptions) (ok bool, err error) {
	var meta poolMetadata
	switch v, isVolume, err := o.parseVolumeRef(ref, opt); {
	case ref == "":
		var src *source
		view, err := o.openPart(ctx, "--thin-metadata", o.ThinMetadata, &src)
		if err != nil {
			return true, err
		}
		ref, meta = o.ThinMetadata, poolMetadata{view, view.Size(), src.Recheck}
	case err != nil:
		return true, err
	case !isVolume, !v.thin && o.holdsImage(opt):
		return false, nil
	case v.thin:
		return true, fail.Usage("%s: a check is of the whole pool: leave it out", ref)
	default:
		if meta, err = o.openPoolMetadata(ctx, ref, v); err != nil {
			return true, err
		}
	}
	return true, a.checkMetadata(ctx, ref, meta)
}

// poolMetadata is what a check of a thin pool reads.
type poolMetadata struct {
	r       io.ReaderAt
	size    int64 // bytes
	recheck func() error
}

// openPoolMetadata opens the metadata volume of a pool, which must not be in
// use: what has not been committed yet would look like damage.
func (o *opener) openPoolMetadata(ctx context.Context, ref string, r volumeRef) (poolMetadata, error) {
	lv, err := o.findLV(ctx, r)
	if err != nil {
		return poolMetadata{}, fmt.Errorf("%s: %w", ref, err)
	}
	g := lv.Group()
	if lv.Fault != nil {
		return poolMetadata{}, fmt.Errorf("%s: %w", ref, lv.Fault)
	}
	if lv.Type() != "thin-pool" {
		return poolMetadata{}, fail.Usage("%s: is no thin pool: there is no structure to check", ref)
	}
	if o.host != nil {
		pool, err := hostlvm.RefOf(lv)
		if err != nil {
			return poolMetadata{}, err
		}
		if _, err = o.host.OpenPool(pool); err == nil {
			return poolMetadata{}, fail.Busy("%s: is in use: a pool is checked when it is not active (lvchange -an)", ref)
		} else if !errors.Is(err, hostlvm.ErrInactive) {
			return poolMetadata{}, hostError(ref, err)
		}
	}
	v, err := g.Open(lv.Segments[0].Metadata, lvm.OpenOptions{})
	if err != nil {
		return poolMetadata{}, fmt.Errorf("%s: %w", ref, volumeError(err))
	}
	return poolMetadata{v, v.Size(), func() error {
		if err := v.Recheck(ctx); err != nil || o.pvs == nil {
			return err
		}
		return o.pvs.recheck()
	}}, nil
}

type thinFaultJSON struct {
	Kind   thin.FaultKind `json:"kind"`
	Struct string         `json:"struct"`
	Block  uint64         `json:"block"`
	Blocks uint64         `json:"blocks,omitempty"`
	Device *int64         `json:"device-id,omitempty"`
	First  *uint64        `json:"first-key,omitempty"`
	Last   *uint64        `json:"last-key,omitempty"`
	Msg    string         `json:"message"`
	Cite   string         `json:"cite,omitempty"`
}

func (l *faultList) addThin(f thin.Fault) {
	j := thinFaultJSON{Kind: f.Kind, Struct: f.Struct, Block: f.Block, Blocks: f.Blocks, Msg: f.Msg, Cite: f.Cite}
	if f.Device >= 0 {
		j.Device = &f.Device
	}
	if f.Keys {
		j.First, j.Last = &f.First, &f.Last
	}
	l.add(f.String(), f.Cite, j)
}

func (a *app) checkMetadata(ctx context.Context, ref string, meta poolMetadata) error {
	out := bufio.NewWriter(a.Stdout)
	list := &faultList{w: out, json: a.json}
	s, err := thin.Check(ctx, meta.r, meta.size, list.addThin)
	if err == nil || s != (thin.CheckStats{}) {
		list.end(fmt.Sprintf("%s, %s; %s, %s in %s; %d of %d data blocks used",
			count(s.Corruptions, "corruption"), count(s.Leaks, "leak"),
			count(s.Devices, "device"), count(s.Mappings, "mapping"), count(s.Nodes, "node"), s.DataUsed, s.DataBlocks),
			map[string]int64{
				"corruptions": s.Corruptions, "leaks": s.Leaks, "notes": s.Notes, "devices": s.Devices, "nodes": s.Nodes, "mappings": s.Mappings,
				"metadata-blocks": int64(s.MetadataBlocks), "metadata-blocks-used": int64(s.MetadataUsed),
				"data-blocks": int64(s.DataBlocks), "data-blocks-used": int64(s.DataUsed),
			})
		if err := out.Flush(); err != nil {
			return err
		}
	}
	if err == nil {
		err = meta.recheck()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	if s.Corruptions+s.Leaks > 0 {
		return fail.Findings("%s: %s and %s found", ref, count(s.Corruptions, "corruption"), count(s.Leaks, "leak"))
	}
	return nil
}
