package cli

import (
	"cbt/internal/fail"
	"cbt/internal/store"
)

// chainRef is a delta, and where those are that it builds on.
type chainRef struct {
	delta *store.File
	opt   store.ChainOptions
}

// openChain opens the state after the delta at path as a source. opt.Snapshot
// names a stream, for deltas of several.
func (o *opener) openChain(path string, ref string, opt refOptions, chain store.ChainOptions) (*source, error) {
	if opt.SnapshotID != "" {
		return nil, fail.Usage("%s: is a delta and has no snapshots", path)
	}
	path, err := o.Resolve(path)
	if err != nil {
		return nil, err
	}
	d, err := o.OpenDelta(path)
	if err != nil {
		return nil, err
	}
	if opt.state {
		return &source{Ref: ref, Path: path, Format: formatDelta, chain: &chainRef{d, chain}}, nil
	}
	stream, err := d.Find(opt.Snapshot)
	if err != nil {
		return nil, err
	}
	return o.streamAfter(d, stream, ref, chain)
}

// streamAfter is the state of a stream after d as a source.
func (o *opener) streamAfter(d *store.File, stream int, ref string, chain store.ChainOptions) (*source, error) {
	view, err := o.Routes(d, chain).View(d.Ends(), stream)
	if err != nil {
		return nil, o.NoChain(d, chain, err)
	}
	s := &source{View: view, Ref: ref, Path: d.Name, Format: formatDelta, Point: d.Header.Streams[stream].To, chain: &chainRef{d, chain}}
	if d.Header.Instant != nil {
		s.Instant = *d.Header.Instant
	}
	s.stream, s.layers = d.Header.Streams[stream].Name, view.Layers()
	return s, nil
}
