package qcow2

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

const writeRefBits = 16 // bits of a refcount, QEMU's default

// imageWriter lays out an image in this order: header, L1 table, data clusters as they come with
// each L2 table after the data that it maps, refcount blocks, refcount table. So everything but the
// header and the L1 table is written in ascending order, and every cluster up to the end has a
// refcount of 1.
type imageWriter struct {
	w       io.WriterAt
	cluster int64
	size    int64 // virtual size in bytes, in whole sectors

	tail *bufio.Writer // writes at pos
	pos  int64

	l1      []byte
	l2      []byte // the table of l1Index, if l2Used
	l1Index int64
	l2Used  bool
}

func newImageWriter(w io.WriterAt, size, cluster int64) (*imageWriter, error) {
	if cluster == 0 {
		cluster = 64 << 10
	}
	if cluster < 1<<minClusterBits || cluster > 1<<maxClusterBits || cluster&(cluster-1) != 0 {
		return nil, fmt.Errorf("qcow2: cluster size %d: not a power of two from 512 to 2097152", cluster)
	}
	// Divide before rounding: size may be near 2^63.
	l2Span := cluster * (cluster / 8)
	entries := size / l2Span
	if size%l2Span != 0 {
		entries++
	}
	if size < 0 || entries > maxL1Bytes/8 {
		return nil, fmt.Errorf("qcow2: an image of %d bytes is too large for clusters of %d bytes", size, cluster)
	}
	iw := &imageWriter{
		w: w, cluster: cluster, size: roundUp(size, 512),
		l1: make([]byte, entries*8), l2: make([]byte, cluster),
	}
	iw.pos = cluster + roundUp(int64(len(iw.l1)), cluster)
	iw.tail = bufio.NewWriterSize(io.NewOffsetWriter(w, iw.pos), writeChunk)
	return iw, nil
}

// append writes whole clusters after all others and returns their offset.
func (iw *imageWriter) append(p []byte) (int64, error) {
	off := iw.pos
	_, err := iw.tail.Write(p)
	iw.pos += int64(len(p))
	return off, err
}

// put stores the clusters of c that are not zero. Chunks must come in ascending order.
func (iw *imageWriter) put(c *chunk) error {
	perTable := iw.cluster / 8
	first := c.span.off / iw.cluster
	for i := 0; i < len(c.zero); i++ {
		if c.zero[i] {
			continue
		}
		guest := first + int64(i)
		if err := iw.openL2(guest / perTable); err != nil {
			return err
		}
		off, err := iw.append(c.data[int64(i)*iw.cluster : int64(i+1)*iw.cluster])
		if err != nil {
			return err
		}
		binary.BigEndian.PutUint64(iw.l2[guest%perTable*8:], uint64(off)|entryCopied)
	}
	return nil
}

// openL2 sets l2 to the table of L1 entry index, and writes the previous one out.
func (iw *imageWriter) openL2(index int64) error {
	if iw.l2Used && iw.l1Index == index {
		return nil
	}
	if err := iw.closeL2(); err != nil {
		return err
	}
	iw.l1Index, iw.l2Used = index, true
	return nil
}

func (iw *imageWriter) closeL2() error {
	if !iw.l2Used {
		return nil
	}
	off, err := iw.append(iw.l2)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint64(iw.l1[iw.l1Index*8:], uint64(off)|entryCopied)
	clear(iw.l2)
	iw.l2Used = false
	return nil
}

// finish writes everything that is not in its place yet, the header last.
func (iw *imageWriter) finish() error {
	if err := iw.closeL2(); err != nil {
		return err
	}
	tableOff, tableClusters, err := iw.putRefcounts()
	if err != nil {
		return err
	}
	if err := iw.tail.Flush(); err != nil {
		return err
	}
	if len(iw.l1) > 0 {
		if _, err := iw.w.WriteAt(iw.l1, iw.cluster); err != nil {
			return err
		}
	}
	_, err = iw.w.WriteAt(iw.header(tableOff, tableClusters), 0)
	return err
}

// putRefcounts appends the refcount blocks and the refcount table. These count themselves too.
func (iw *imageWriter) putRefcounts() (tableOff, tableClusters int64, err error) {
	used := iw.pos / iw.cluster
	perBlock := iw.cluster * 8 / writeRefBits
	blocks, total := int64(0), int64(-1)
	for next := used; next != total; next = used + blocks + tableClusters {
		total = next
		blocks = (total + perBlock - 1) / perBlock
		tableClusters = roundUp(blocks*8, iw.cluster) / iw.cluster
	}
	if tableClusters*iw.cluster > maxRefcountTableBytes {
		return 0, 0, fmt.Errorf("qcow2: %d bytes of data are too many for clusters of %d bytes", iw.pos, iw.cluster)
	}

	table := make([]byte, tableClusters*iw.cluster)
	block := make([]byte, iw.cluster)
	for i := range blocks {
		if n := min(perBlock, total-i*perBlock); i == 0 || n < perBlock {
			clear(block)
			for c := range n {
				binary.BigEndian.PutUint16(block[c*2:], 1)
			}
		}
		off, err := iw.append(block)
		if err != nil {
			return 0, 0, err
		}
		binary.BigEndian.PutUint64(table[i*8:], uint64(off))
	}
	tableOff, err = iw.append(table)
	return tableOff, tableClusters, err
}

// header returns the version 3 header and the extension that ends the (empty) list of extensions.
func (iw *imageWriter) header(tableOff, tableClusters int64) []byte {
	h := make([]byte, headerSizeMax+8)
	copy(h, Magic)
	be := binary.BigEndian
	be.PutUint32(h[4:], 3)
	be.PutUint32(h[20:], uint32(log2(iw.cluster)))
	be.PutUint64(h[24:], uint64(iw.size))
	be.PutUint32(h[36:], uint32(len(iw.l1)/8))
	if len(iw.l1) > 0 {
		be.PutUint64(h[40:], uint64(iw.cluster))
	}
	be.PutUint64(h[48:], uint64(tableOff))
	be.PutUint32(h[56:], uint32(tableClusters))
	be.PutUint32(h[96:], uint32(log2(writeRefBits)))
	be.PutUint32(h[100:], headerSizeMax)
	return h
}
