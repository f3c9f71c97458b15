package qcow2

import (
	"encoding/binary"
	"math/bits"

	"cbt/sparse"
)

// run is a part of a disk that the disk's own tables, without the backing file, describe in the
// same way. It is as long as possible, except that each compressed cluster is a run by itself.
type run struct {
	off, n int64
	kind   kind
	host   int64   // where off is stored, or preallocated; -1 if nowhere
	entry  l2Entry // of a compressed cluster
}

func (r run) end() int64 { return r.off + r.n }

// extends reports whether next continues r.
func (r run) extends(next run) bool {
	if r.kind != next.kind || r.kind == deflated || r.end() != next.off {
		return false
	}
	if r.host < 0 {
		return next.host < 0
	}
	return next.host == r.host+r.n
}

// walker goes over a part of a disk, run by run, and reads each slice of a table once. With scan
// set it does not use the cache: what a long scan reads would only push out slices that other
// readers will want again.
type walker struct {
	v        *View
	pos, end int64
	scan     bool
	l1, l2   window
	ahead    run   // the beginning of the next run, if its length is not 0
	err      error // at pos
}

// window is the slice of a table that a walker currently reads.
type window struct {
	off uint64 // in the file
	b   []byte
	own []byte // buffer for b, used with scan
}

// walk returns a walker over [off, off+n). This range lies inside the disk or, for machine state,
// past its end.
func (v *View) walk(off, n int64) *walker {
	w := &walker{v: v, scan: n > v.img.header.L1Span()}
	w.seek(off, off+n)
	return w
}

// seek sets the walker to go over [pos, end).
func (w *walker) seek(pos, end int64) { w.pos, w.end, w.ahead, w.err = pos, end, run{}, nil }

// next returns the next run; after the last one its length is 0. An error comes after the runs
// before it, and again on every later call.
func (w *walker) next() (run, error) {
	r := w.ahead
	w.ahead = run{}
	for w.pos < w.end && w.err == nil {
		more, err := w.piece()
		if err != nil {
			w.err = err
			break
		}
		w.pos = more.end()
		if r.n == 0 {
			r = more
		} else if r.extends(more) {
			r.n += more.n
		} else {
			w.ahead = more
			break
		}
	}
	if r.n == 0 {
		return run{}, w.err
	}
	return r, nil
}

// piece returns the run at pos as far as one slice of a table shows it.
func (w *walker) piece() (run, error) {
	span := w.v.img.header.L1Span()
	index := w.pos / span
	table, same, err := w.l1Run(index)
	if err != nil {
		return run{}, err
	}
	if table == 0 {
		last := index + same
		end := w.end
		if last <= (w.end-1)/span {
			end = last * span
		}
		return run{w.pos, end - w.pos, unallocated, -1, 0}, nil
	}
	cluster := w.v.img.header.ClusterSize()
	entry := w.pos % span / cluster
	b, first, err := w.l2Slice(table, entry)
	if err != nil {
		return run{}, err
	}
	return w.clusters(b, entry-first, int64(table)+first*w.v.img.header.L2EntrySize())
}

// l1Run returns the offset of the L2 table of L1 entry index. If that is 0, same is how many
// entries from this one on are 0, as far as the slice shows.
func (w *walker) l1Run(index int64) (table uint64, same int64, err error) {
	if index >= w.v.l1Entries {
		return 0, 1 << 32, nil
	}
	b, err := w.l1Slice(index)
	if err != nil {
		return 0, 0, err
	}
	first := index &^ (maxSlice/8 - 1)
	e := l1Entry(binary.BigEndian.Uint64(b[(index-first)*8:]))
	if fault := e.fault(w.v.img.header.ClusterBits); fault != "" {
		return 0, 0, &sparse.FormatError{Struct: "qcow2 L1 entry", Off: int64(w.v.l1Offset) + index*8, Value: uint64(e), Msg: fault}
	}
	if e.offset() != 0 {
		return e.offset(), 1, nil
	}
	rest := b[(index-first)*8:]
	same = 1
	for same*8 < int64(len(rest)) && binary.BigEndian.Uint64(rest[same*8:]) == 0 {
		same++
	}
	return 0, same, nil
}

// l1Slice returns the slice of the L1 table that holds entry index, starting
// at a multiple of maxSlice.
func (w *walker) l1Slice(index int64) ([]byte, error) {
	first := index &^ (maxSlice/8 - 1)
	n := min(maxSlice, (w.v.l1Entries-first)*8)
	return w.load(&w.l1, "qcow2 L1 table", w.v.l1Offset+uint64(first)*8, int(n))
}

// l2Slice returns the slice that holds an entry of the L2 table at offset
// table, and the number of its first entry.
func (w *walker) l2Slice(table uint64, entry int64) (b []byte, first int64, err error) {
	size := w.v.img.header.L2EntrySize()
	n := min(maxSlice, w.v.img.header.ClusterSize())
	first = entry &^ (n/size - 1)
	b, err = w.load(&w.l2, "qcow2 L2 table", table+uint64(first*size), int(n))
	return b, first, err
}

// load sets win to the n bytes at off and returns them.
func (w *walker) load(win *window, what string, off uint64, n int) ([]byte, error) {
	if win.off == off && len(win.b) == n && n > 0 {
		return win.b, nil
	}
	win.b = nil
	if !w.scan {
		b, err := w.v.img.cachedTable(what, off, n)
		if err != nil {
			return nil, err
		}
		win.off, win.b = off, b
		return b, nil
	}
	if cap(win.own) < n {
		win.own = make([]byte, n)
	}
	if err := w.v.img.file.fill(what, win.own[:n], off); err != nil {
		return nil, err
	}
	win.off, win.b = off, win.own[:n]
	return win.b, nil
}

// clusters returns the run that starts at pos and is described by entry i of the slice b, as far as
// the slice goes. at is where the slice lies in the file.
func (w *walker) clusters(b []byte, i, at int64) (run, error) {
	img := w.v.img
	cluster, size := img.header.ClusterSize(), img.header.L2EntrySize()
	entry, bitmap := l2At(b, i, size)
	k, host, fault := img.layout.cluster(entry, bitmap)
	inside := w.pos & (cluster - 1)
	if fault == "" && img.layout.dataFile && host >= 0 && host != w.pos-inside {
		fault = "host offset in the external data file is not the guest offset"
	}
	if fault != "" {
		return run{}, &sparse.FormatError{Struct: "qcow2 L2 entry", Off: at + i*size, Value: uint64(entry), Msg: fault}
	}
	r := run{off: w.pos, n: min(cluster-inside, w.end-w.pos), kind: k, host: host}
	if host >= 0 {
		r.host += inside
	}
	switch k {
	case deflated:
		r.entry = entry &^ l2Entry(entryCopied)
	case mixed:
		w.subclusterRun(&r, bitmap)
	default:
		more := w.repeats(b[(i+1)*size:], uint64(entry), bitmap, host >= 0)
		r.n = min((more+1)*cluster-inside, w.end-w.pos)
	}
	return r, nil
}

// subclusterRun fills in r, a run inside a cluster whose subclusters differ.
func (w *walker) subclusterRun(r *run, bitmap uint64) {
	img := w.v.img
	sub := img.header.ClusterSize() / subclusters
	inside := r.off & (img.header.ClusterSize() - 1)
	i := int(inside / sub)
	r.kind = subcluster(bitmap, i)
	last := i + 1
	for last < subclusters && subcluster(bitmap, last) == r.kind {
		last++
	}
	r.n = min(int64(last)*sub-inside, w.end-w.pos)
}

// repeats returns how many entries at the start of b continue the one before them: they are the
// same, with consecutive host offsets if it has one. Entries that it cannot judge quickly count as
// not continuing.
func (w *walker) repeats(b []byte, entry, bitmap uint64, allocated bool) int64 {
	layout := &w.v.img.layout
	step, mask := uint64(0), ^entryCopied
	if allocated {
		step = 1 << layout.clusterBits
	}
	if layout.dataFile {
		mask = ^uint64(0)
	}
	want, n := entry&mask+step, int64(0)
	if layout.extended {
		for ; len(b) >= 16 && binary.BigEndian.Uint64(b)&mask == want && binary.BigEndian.Uint64(b[8:]) == bitmap; n++ {
			b, want = b[16:], want+step
		}
	} else {
		for ; len(b) >= 8 && binary.BigEndian.Uint64(b)&mask == want; n++ {
			b, want = b[8:], want+step
		}
	}
	// A host offset that has grown into the reserved bits is not a host offset.
	if allocated && bits.Len64(entry&entryOffset+uint64(n)*step) > 56 {
		return 0
	}
	return n
}

// l2At decodes entry i of a slice of an L2 table.
func l2At(b []byte, i, size int64) (entry l2Entry, bitmap uint64) {
	entry = l2Entry(binary.BigEndian.Uint64(b[i*size:]))
	if size == 16 {
		bitmap = binary.BigEndian.Uint64(b[i*size+8:])
	}
	return entry, bitmap
}
