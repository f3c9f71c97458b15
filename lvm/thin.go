package lvm

import (
	"errors"
	"fmt"

	"cbt/lvm/thin"
	"cbt/sparse"
)

// thin opens a thin volume.
func (r *resolver) thin(v *Volume) error {
	s := v.lv.thin()
	pool := r.g.lvs[s.ThinPool]
	if pool == nil {
		return v.lv.formatError(s.ThinPool, "names a thin pool that is none")
	}
	m, err := r.pool(pool)
	if err != nil {
		return fmt.Errorf("%s: %w", v.lv.FullName(), err)
	}
	var data thin.Data
	if v.device == nil {
		d, err := r.component(pool, pool.Segments[0].Data)
		if err != nil {
			return fmt.Errorf("%s: %w", v.lv.FullName(), err)
		}
		data = thin.Data{R: d, Size: d.Size()}
	}
	var external sparse.View
	if s.ExternalOrigin != "" {
		o, err := r.volume(s.ExternalOrigin)
		if err != nil {
			return fmt.Errorf("%s: external origin: %w", v.lv.FullName(), err)
		}
		external = o
	}
	if v.thin, err = m.View(uint32(s.DeviceID), v.lv.Size, data, external); err != nil {
		return fmt.Errorf("%s: %w", v.lv.FullName(), err)
	}
	v.view, v.pool = v.thin, m
	return nil
}

// pool opens the metadata of a thin pool, once, and checks that they fit the group's text.
func (r *resolver) pool(lv *LV) (*thin.Metadata, error) {
	if m := r.g.pools[lv.Name]; m != nil {
		return m, nil
	}
	if lv.Fault != nil {
		return nil, fmt.Errorf("%s: %w", lv.FullName(), lv.Fault)
	}
	s := &lv.Segments[0]
	switch {
	case len(lv.Segments) != 1:
		return nil, lv.formatError(len(lv.Segments), "a thin pool of more than one segment")
	case s.Refused != "":
		return nil, lv.refuse(s.Refused)
	case s.Type != "thin-pool":
		return nil, lv.formatError(s.Type, "not a thin pool")
	}
	meta, err := r.component(lv, s.Metadata)
	if err != nil {
		return nil, err
	}
	m, err := thin.Open(meta, meta.Size(), thin.Options{Held: r.opt.Held})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", lv.FullName(), err)
	}
	data := r.g.lvs[s.Data]
	if data == nil {
		return nil, lv.formatError(s.Data, "names a volume that is not there")
	}
	if err := r.poolFits(lv, s, m.Superblock(), data.Size); err != nil {
		return nil, err
	}
	if r.g.pools == nil {
		r.g.pools = map[string]*thin.Metadata{}
	}
	r.g.pools[lv.Name] = m
	return m, nil
}

// poolFits compares a pool's superblock with the text. LVM counts transactions in both, and first
// in the text. If the text is one ahead and has messages for the pool, an operation was
// interrupted.
func (r *resolver) poolFits(lv *LV, s *Segment, sb thin.Superblock, data int64) error {
	text := uint64(s.TransactionID)
	switch {
	case sb.TransactionID+1 == text && s.Messages > 0:
		return lv.refuse(fmt.Sprintf("an operation on the pool was not finished: its metadata are at transaction %d, the group's text at %d with %d messages to send; activate the pool once", sb.TransactionID, text, s.Messages))
	case sb.TransactionID != text:
		return lv.refuse(fmt.Sprintf("its metadata are at transaction %d, the group's text at %d", sb.TransactionID, text))
	case sb.DataBlockSize != s.ChunkSize:
		return lv.formatError(s.ChunkSize, fmt.Sprintf("its chunk size is not the %d bytes of its metadata", sb.DataBlockSize))
	case sb.Data.Blocks > uint64(data/s.ChunkSize):
		return lv.formatError(sb.Data.Blocks, fmt.Sprintf("more data blocks in its metadata than fit the %d bytes of %s", data, s.Data))
	case sb.NeedsCheck() && !r.opt.AllowNeedsCheck:
		return lv.refuse("its metadata need checking: an operation on them failed")
	}
	return nil
}

// ErrNoPool means that a volume is not a thin pool.
var ErrNoPool = errors.New("not a thin pool")

// Pool opens the metadata of the thin pool of that name. Volumes of the pool that are opened with
// the same options share the metadata.
func (g *Group) Pool(name string, opt OpenOptions) (*thin.Metadata, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	lv := g.lvs[name]
	if lv == nil || lv.Fault == nil && (len(lv.Segments) != 1 || lv.Segments[0].Type != "thin-pool") {
		return nil, fmt.Errorf("%s/%s: %w", g.Name, name, ErrNoPool)
	}
	r := resolver{g: g, opt: opt}
	return r.pool(lv)
}
