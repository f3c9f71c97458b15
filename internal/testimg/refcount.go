package testimg

const offsetMask = 0x00ff_ffff_ffff_fe00

// references counts who uses each cluster, as the format wants it.
func (q *Qcow2) references() []uint64 {
	refs := make([]uint64, int64(len(q.b))/q.cluster)
	use := func(off, n int64) {
		for c := off / q.cluster; n > 0 && c <= (off+n-1)/q.cluster; c++ {
			if c < int64(len(refs)) {
				refs[c]++
			}
		}
	}
	use(0, q.cluster)
	use(q.snapshotTable, int64(len(q.snapshotEntries())))
	q.eachL1(func(off int64, l1 []uint64) {
		use(off, max(8, int64(len(l1))*8))
		for _, table := range l1 {
			if table == 0 {
				continue
			}
			use(int64(table), q.cluster)
			for at := int64(0); at < q.cluster; at += q.entrySize {
				e := be.Uint64(q.b[int64(table)+at:])
				if x := 70 - q.opt.ClusterBits; e>>62&1 != 0 {
					off := int64(e & (1<<x - 1))
					use(off, int64(e&^(3<<62)>>x+1)*512-off%512)
				} else if e&offsetMask != 0 && q.opt.DataFile == "" {
					use(int64(e&offsetMask), q.cluster)
				}
			}
		}
	})
	return refs
}

// eachL1 calls f for the active L1 table, then for those of the snapshots.
func (q *Qcow2) eachL1(f func(off int64, l1 []uint64)) {
	f(q.l1Offset, q.l1)
	for _, s := range q.snapshots {
		f(s.l1Offset, s.l1)
	}
}

// placeRefcounts allocates refcount blocks and then their table, for used
// clusters and themselves.
func (q *Qcow2) placeRefcounts(used int64) {
	perBlock := q.cluster * 8 / q.refcountBits
	blocks, tables := int64(1), int64(1)
	for blocks*perBlock < used+blocks+tables || tables*q.cluster < blocks*8 {
		blocks = (used + blocks + tables + perBlock - 1) / perBlock
		tables = (blocks*8 + q.cluster - 1) / q.cluster
	}
	q.refcountBlocks = q.Alloc(blocks * q.cluster)
	q.refcountTable, q.refcountTableClusters = q.Alloc(tables*q.cluster), tables
	for i := range blocks {
		be.PutUint64(q.b[q.refcountTable+i*8:], uint64(q.refcountBlocks+i*q.cluster))
	}
}

// writeRefcounts counts everything.
func (q *Qcow2) writeRefcounts() {
	if q.opt.Clusters == 0 {
		q.placeRefcounts(int64(len(q.b)) / q.cluster)
	}
	refs := q.references()
	for c := q.refcountBlocks / q.cluster; c < q.refcountTable/q.cluster+q.refcountTableClusters; c++ {
		refs[c]++
	}
	blocks := q.b[q.refcountBlocks:q.refcountTable]
	clear(blocks)
	for i, n := range refs {
		q.putRefcount(blocks, int64(i), n)
	}
}

// putRefcount sets entry i of the blocks, which follow one another. Entries
// under a byte fill it from the lowest bit; wider ones are big endian.
func (q *Qcow2) putRefcount(blocks []byte, i int64, n uint64) {
	switch w := q.refcountBits; {
	case w < 8:
		blocks[i*w/8] |= byte(n << (i * w % 8))
	default:
		for k := range w / 8 {
			blocks[i*w/8+k] = byte(n >> (w - 8 - 8*k))
		}
	}
}

// setCopied sets the COPIED bits of the active state where the refcount is 1
// and clears all others. Blocks and tables of refcounts are never in question.
func (q *Qcow2) setCopied() {
	const copied = 1 << 63
	refs := q.references()
	q.eachL1(func(off int64, l1 []uint64) {
		for _, table := range l1 {
			for at := int64(0); table != 0 && at < q.cluster; at += q.entrySize {
				b := q.b[int64(table)+at:]
				be.PutUint64(b, be.Uint64(b)&^copied)
			}
		}
	})
	for i, table := range q.l1 {
		if table == 0 {
			continue
		}
		if refs[int64(table)/q.cluster] == 1 {
			be.PutUint64(q.b[q.l1Offset+int64(i)*8:], table|copied)
		}
		for at := int64(0); at < q.cluster; at += q.entrySize {
			b := q.b[int64(table)+at:]
			e := be.Uint64(b)
			host := int64(e & offsetMask)
			if e>>62&1 != 0 || host == 0 {
				continue
			}
			if q.opt.DataFile != "" || host/q.cluster < int64(len(refs)) && refs[host/q.cluster] == 1 {
				be.PutUint64(b, e|copied)
			}
		}
	}
}
