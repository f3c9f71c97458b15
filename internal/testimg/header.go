package testimg

import "fmt"

func (q *Qcow2) writeHeader() {
	o := &q.opt
	h := make([]byte, 112)
	copy(h, "QFI\xfb")
	be.PutUint32(h[4:], o.Version)
	be.PutUint32(h[20:], o.ClusterBits)
	be.PutUint64(h[24:], uint64(o.Size))
	be.PutUint32(h[36:], uint32(len(q.l1)))
	be.PutUint64(h[40:], uint64(q.l1Offset))
	be.PutUint64(h[48:], uint64(q.refcountTable))
	be.PutUint32(h[56:], uint32(q.refcountTableClusters))
	be.PutUint32(h[60:], uint32(len(q.snapshots)))
	if len(q.snapshots) > 0 {
		be.PutUint64(h[64:], uint64(q.snapshotTable))
	}
	features := o.Incompatible
	if o.DataFile != "" {
		features |= 1 << 2
	}
	if o.Zstd {
		features |= 1 << 3
		h[104] = 1
	}
	if o.ExtendedL2 {
		features |= 1 << 4
	}
	be.PutUint64(h[72:], features)
	be.PutUint64(h[80:], o.Compatible)
	be.PutUint64(h[88:], o.Autoclear)
	be.PutUint32(h[96:], o.RefcountOrder)
	be.PutUint32(h[100:], uint32(len(h)))
	if o.Version == 2 {
		h = h[:72]
	}
	extensions := o.Extensions
	if o.BackingFormat != "" {
		extensions = append([]Qcow2Extension{{0xe2792aca, []byte(o.BackingFormat)}}, extensions...)
	}
	if o.DataFile != "" {
		extensions = append([]Qcow2Extension{{0x44415441, []byte(o.DataFile)}}, extensions...)
	}
	for _, x := range extensions {
		h = be.AppendUint32(be.AppendUint32(h, x.Type), uint32(len(x.Data)))
		h = append(append(h, x.Data...), make([]byte, -len(x.Data)&7)...)
	}
	h = append(h, make([]byte, 8)...)
	if o.Backing != "" {
		be.PutUint64(h[8:], uint64(len(h)))
		be.PutUint32(h[16:], uint32(len(o.Backing)))
		h = append(h, o.Backing...)
	}
	if int64(len(h)) > q.cluster {
		panic(fmt.Sprintf("testimg: a header of %d bytes in a cluster of %d", len(h), q.cluster))
	}
	clear(q.b[:q.cluster])
	copy(q.b, h)
}
