package qcow2

import "encoding/binary"

// l2Walk checks the entries of L2 tables.
type l2Walk struct {
	*checker
	size      int64 // of an entry, in bytes
	extended  bool
	dataFile  bool
	table     l2Table
	active    bool
	structure string
	next      int64 // where the next cluster lies if the image is not fragmented
}

func (w *l2Walk) at(i int64) where {
	return where{w.structure, w.table.off + i*w.size, int64(w.table.index)*w.h.L1Span() + i*w.cluster}
}

func (w *l2Walk) entries(buf []byte) {
	w.next = 0
	for i := range int64(len(buf)) / w.size {
		e := binary.BigEndian.Uint64(buf[i*w.size:])
		var subs uint64
		if w.extended {
			subs = binary.BigEndian.Uint64(buf[i*w.size+8:])
		}
		switch {
		case e == 0 && subs == 0:
		case e&entryCompressed != 0:
			w.compressed(i, e, subs)
		default:
			w.standard(i, e, subs)
		}
	}
}

func (w *l2Walk) standard(i int64, e, subs uint64) {
	if e&l2Reserved != 0 {
		w.corrupt(w.at(i), citeL2Reserved, "reserved bits are set: 0x%016x", e)
	}
	if e&entryZero != 0 && (w.h.Version < 3 || w.extended) {
		w.corrupt(w.at(i), citeL2ZeroBit, "the zero bit is set: 0x%016x", e)
	}
	if subs>>32&subs != 0 {
		w.corrupt(w.at(i), citeSubZero, "subclusters are allocated and zero: 0x%016x", subs)
	}
	off := int64(e & entryOffset)
	copied := e&entryCopied != 0
	if off == 0 && !(w.dataFile && copied) {
		if copied {
			w.corrupt(w.at(i), citeL2NoOffset, "COPIED is set and the offset is 0: 0x%016x", e)
		}
		if subs&0xffff_ffff != 0 {
			w.corrupt(w.at(i), citeSubAlloc, "subclusters are allocated and the cluster is not: 0x%016x", subs)
		}
		return
	}
	if off%w.cluster != 0 {
		w.corrupt(w.at(i), citeL2Offset, "host offset 0x%x is not cluster aligned", off)
		off -= off % w.cluster // this cluster is most likely the one in use
		copied = false
	}
	if w.active {
		w.stats.Allocated++
		if w.next != 0 && off != w.next {
			w.stats.Fragmented++
		}
		w.next = off + w.cluster
	}
	if w.dataFile {
		w.external(i, e, off)
		return
	}
	if off >= w.end {
		w.corrupt(w.at(i), citeL2Offset, "host offset 0x%x is past the end of the file", off)
		return
	}
	cl := off / w.cluster
	if with := conflict(w.used.add(cl, w.table.refs, usedData), usedData); with != 0 {
		w.shared(w.at(i), off, 1, with)
	}
	if w.active && e&entryOffset == uint64(off) {
		w.markCopied(cl, e)
	}
}

// external checks an entry that leads to the external data file. Clusters there are not counted.
func (w *l2Walk) external(i int64, e uint64, off int64) {
	at := w.at(i)
	if off != at.guest {
		w.corrupt(at, citeDataFileFixed, "offset 0x%x in the data file", off)
	}
	if w.active && e&entryCopied == 0 {
		w.corrupt(at, citeL2DataFile, "COPIED is not set: 0x%016x", e)
	}
}

func (w *l2Walk) compressed(i int64, e, subs uint64) {
	if w.dataFile {
		w.corrupt(w.at(i), citeDataFileRules, "a compressed cluster in an image with an external data file: 0x%016x", e)
		return
	}
	if e&entryCopied != 0 {
		w.corrupt(w.at(i), citeL2Copied, "COPIED is set for a compressed cluster: 0x%016x", e)
	}
	if subs != 0 {
		w.corrupt(w.at(i), citeSubZip, "a compressed cluster has subclusters: 0x%016x", subs)
	}
	off, limit := l2Entry(e).compressedData(w.h.ClusterBits)
	if off>>56 != 0 {
		w.corrupt(w.at(i), citeZipOffset, "host offset 0x%x has bits above 55", off)
		return
	}
	first, end := int64(off)&^511, int64(off+limit)
	if w.active {
		w.stats.Allocated++
		w.stats.Compressed++
		w.stats.Fragmented++ // as QEMU counts: always
	}
	if end > w.end {
		w.corrupt(w.at(i), citeZipSectors, "compressed data at [0x%x, 0x%x) is past the end of the file", off, end)
		end = w.end
	}
	for cl := first / w.cluster; cl*w.cluster < end; cl++ {
		if with := conflict(w.used.add(cl, w.table.refs, usedCompressed), usedCompressed); with != 0 {
			w.shared(w.at(i), cl*w.cluster, 1, with)
		}
	}
}
