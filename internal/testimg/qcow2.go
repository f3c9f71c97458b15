// Package testimg builds small images byte by byte for tests: sound ones, and
// with the offsets it tells, ones that no tool would make. The same calls give
// the same bytes.
package testimg

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"time"
)

var be = binary.BigEndian

// Qcow2Options say what kind of image to build. Zero values are QEMU's
// defaults, except that Version 0 means 3 and ClusterBits 0 means 16.
type Qcow2Options struct {
	Version       uint32
	ClusterBits   uint32
	RefcountOrder uint32 // 0 means 4, as there is no other way to ask for 1 bit
	Size          int64
	L1Size        uint32 // entries; 0 means as many as Size needs
	ExtendedL2    bool
	Zstd          bool // compression_type; Compress still makes deflate
	DataFile      string
	Backing       string
	BackingFormat string
	Incompatible  uint64 // further bits
	Compatible    uint64
	Autoclear     uint64
	Extensions    []Qcow2Extension // further ones

	// Clusters, if not 0, puts the refcounts of so many clusters and one cluster
	// of snapshot table right behind the header. Otherwise they come last.
	Clusters int64
}

// Qcow2Extension is a header extension.
type Qcow2Extension struct {
	Type uint32
	Data []byte
}

// Qcow2 is an image that is being built. Its methods panic when asked for what
// does not fit: they are called by tests.
type Qcow2 struct {
	opt       Qcow2Options
	cluster   int64
	entrySize int64
	b         []byte
	l1        []uint64
	l1Offset  int64
	snapshots []qcow2Snapshot
	shared    map[int64]bool // L2 tables that a snapshot has too
	tail      int64          // where the next compressed cluster may start

	refcountBits                         int64
	refcountBlocks, refcountTable        int64
	refcountTableClusters, snapshotTable int64
}

type qcow2Snapshot struct {
	id, name string
	size     int64
	l1       []uint64
	l1Offset int64
}

// NewQcow2 starts an image with nothing allocated.
func NewQcow2(opt Qcow2Options) *Qcow2 {
	if opt.Version == 0 {
		opt.Version = 3
	}
	if opt.ClusterBits == 0 {
		opt.ClusterBits = 16
	}
	if opt.RefcountOrder == 0 {
		opt.RefcountOrder = 4
	}
	q := &Qcow2{opt: opt, cluster: 1 << opt.ClusterBits, entrySize: 8, shared: make(map[int64]bool), refcountBits: 1 << opt.RefcountOrder}
	if opt.ExtendedL2 {
		q.entrySize = 16
	}
	n := int64(opt.L1Size)
	if n == 0 {
		n = (opt.Size + q.span() - 1) / q.span()
	}
	q.l1 = make([]uint64, n)
	q.b = make([]byte, q.cluster)
	if opt.Clusters > 0 {
		q.placeRefcounts(opt.Clusters)
		q.snapshotTable = q.Alloc(q.cluster)
	}
	q.l1Offset = q.Alloc(max(8, 8*n))
	return q
}

func (q *Qcow2) span() int64 { return q.cluster * (q.cluster / q.entrySize) }

// Alloc appends whole clusters for n bytes and returns where they start.
func (q *Qcow2) Alloc(n int64) int64 {
	off := int64(len(q.b))
	q.b = append(q.b, make([]byte, (n+q.cluster-1)&^(q.cluster-1))...)
	return off
}

// L1 is the place of the entry of the active L1 table for a guest offset.
func (q *Qcow2) L1(guest int64) int64 { return q.l1Offset + guest/q.span()*8 }

// L2 is the place of the L2 entry for a guest offset, made if need be; a table
// that a snapshot has too is copied first.
func (q *Qcow2) L2(guest int64) int64 {
	i := guest / q.span()
	table := int64(q.l1[i])
	if table == 0 || q.shared[table] {
		old := table
		table = q.Alloc(q.cluster)
		if old != 0 {
			copy(q.b[table:], q.b[old:old+q.cluster])
		}
		q.l1[i] = uint64(table)
	}
	return table + guest%q.span()/q.cluster*q.entrySize
}

// Entry sets the L2 entry for a guest offset, with its bitmap if entries are
// extended. COPIED bits are added by Bytes.
func (q *Qcow2) Entry(guest int64, entry, bitmap uint64) {
	at := q.L2(guest)
	be.PutUint64(q.b[at:], entry)
	if q.opt.ExtendedL2 {
		be.PutUint64(q.b[at+8:], bitmap)
	}
}

// Write stores data, whole clusters or a part of the last one, in new
// clusters. It returns the host offset.
func (q *Qcow2) Write(guest int64, data []byte) int64 {
	if guest%q.cluster != 0 {
		panic(fmt.Sprintf("testimg: guest offset %d is not cluster aligned", guest))
	}
	host := q.Alloc(int64(len(data)))
	copy(q.b[host:], data)
	for at := int64(0); at < int64(len(data)); at += q.cluster {
		q.Entry(guest+at, uint64(host+at), 1<<32-1)
	}
	return host
}

// Word is the 64-bit word at a place of the file.
func (q *Qcow2) Word(at int64) uint64 { return be.Uint64(q.b[at:]) }

// Put overwrites bytes of the file.
func (q *Qcow2) Put(off int64, data []byte) { copy(q.b[off:off+int64(len(data))], data) }

// Compress stores one deflated cluster right behind the last one, at any
// offset. It returns the host offset.
func (q *Qcow2) Compress(guest int64, data []byte) int64 {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		panic(err)
	}
	w.Write(append(bytes.Clone(data), make([]byte, q.cluster-int64(len(data)))...))
	w.Close()
	return q.CompressedBytes(guest, out.Bytes())
}

// CompressedBytes is Compress for bytes that are compressed already, or not.
func (q *Qcow2) CompressedBytes(guest int64, raw []byte) int64 {
	if q.tail == 0 || q.tail%q.cluster == 0 || q.cluster-q.tail%q.cluster < int64(len(raw)) {
		q.tail = q.Alloc(int64(len(raw)))
	}
	host := q.tail
	copy(q.b[host:], raw)
	q.tail += int64(len(raw))
	sectors := (host+int64(len(raw))-1)/512 - host/512
	q.Entry(guest, 1<<62|uint64(sectors)<<(70-q.opt.ClusterBits)|uint64(host), 0)
	return host
}

// Snapshot freezes the present state under an ID and a name. Its date is one
// second after the last one's.
func (q *Qcow2) Snapshot(id, name string) {
	s := qcow2Snapshot{id: id, name: name, size: q.opt.Size, l1: append([]uint64(nil), q.l1...)}
	for _, table := range s.l1 {
		q.shared[int64(table)] = true
	}
	s.l1Offset = q.Alloc(max(8, 8*int64(len(s.l1))))
	q.snapshots = append(q.snapshots, s)
}

// Resize changes the size of the active state. The L1 table moves if it grows.
func (q *Qcow2) Resize(size int64) {
	q.opt.Size = size
	n := (size + q.span() - 1) / q.span()
	if n > int64(len(q.l1)) {
		q.l1 = append(q.l1, make([]uint64, n-int64(len(q.l1)))...)
		q.l1Offset = q.Alloc(8 * n)
	}
}

// Bytes finishes the image: tables, refcounts and header are written, and
// COPIED bits set. The image can be built on afterwards, with new tables.
func (q *Qcow2) Bytes() []byte {
	table := q.snapshotEntries()
	if q.opt.Clusters == 0 {
		q.snapshotTable = q.Alloc(int64(len(table)))
	}
	q.Put(q.snapshotTable, table)
	q.writeRefcounts()
	q.writeL1(q.l1Offset, q.l1)
	for _, s := range q.snapshots {
		q.writeL1(s.l1Offset, s.l1)
	}
	q.setCopied()
	q.writeHeader()
	return bytes.Clone(q.b)
}

// SetExtension replaces the data of a further header extension.
func (q *Qcow2) SetExtension(typ uint32, data []byte) {
	for i := range q.opt.Extensions {
		if q.opt.Extensions[i].Type == typ {
			q.opt.Extensions[i].Data = data
		}
	}
}

func (q *Qcow2) writeL1(off int64, l1 []uint64) {
	for i, e := range l1 {
		be.PutUint64(q.b[off+int64(i)*8:], e)
	}
}

// SnapshotDate is the date of snapshot i, counted from 0.
func SnapshotDate(i int) time.Time { return time.Unix(1_000_000_000+int64(i), 5).UTC() }

func (q *Qcow2) snapshotEntries() []byte {
	var b []byte
	for i, s := range q.snapshots {
		e := make([]byte, 64)
		be.PutUint64(e[0:], uint64(s.l1Offset))
		be.PutUint32(e[8:], uint32(len(s.l1)))
		be.PutUint16(e[12:], uint16(len(s.id)))
		be.PutUint16(e[14:], uint16(len(s.name)))
		be.PutUint32(e[16:], uint32(SnapshotDate(i).Unix()))
		be.PutUint32(e[20:], uint32(SnapshotDate(i).Nanosecond()))
		be.PutUint32(e[36:], 24)
		be.PutUint64(e[48:], uint64(s.size))
		e = append(append(e, s.id...), s.name...)
		b = append(b, append(e, make([]byte, -len(e)&7)...)...)
	}
	return b
}
