package qcow2

import (
	"fmt"

	"cbt/internal/binfmt"
	"cbt/sparse"
)

// ReadAt implements sparse.View. Clusters that are neighbours both on the disk and in the file are
// read at once. A fault of the image, data past the end of the file included, is a
// *sparse.FormatError.
func (v *View) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, v.size)
	if len(p) == 0 {
		return 0, eof
	}
	if n, err := v.readRange(p, off); err != nil {
		return n, err
	}
	return len(p), eof
}

// readRange fills p from off on and returns how many bytes of it are valid.
func (v *View) readRange(p []byte, off int64) (int, error) {
	w := walker{v: v, pos: off, end: off + int64(len(p))}
	for done := 0; ; {
		r, err := w.next()
		if err == nil && r.n == 0 {
			return done, nil
		}
		if err == nil {
			err = v.readRun(p[done:][:r.n], r)
		}
		if err != nil {
			return done, err
		}
		done += int(r.n)
	}
}

// readRun fills p with the bytes of r.
func (v *View) readRun(p []byte, r run) error {
	if v.img.header.CryptMethod != CryptNone && (r.kind == stored || r.kind == deflated) {
		return fmt.Errorf("qcow2 data cluster at guest offset 0x%x: %w", r.off, ErrEncrypted)
	}
	switch r.kind {
	case zeros:
		clear(p)
		return nil
	case stored:
		return v.img.readStored(p, r)
	case deflated:
		return v.img.readCompressed(p, r)
	}
	return v.readBelow(p, r.off)
}

// readStored reads from the file, or from the external data file. Past its end QEMU reads zeros. No
// image that QEMU writes needs that, because QEMU always writes whole clusters: a file that ends
// early was cut, and reading it fails. But a data file is a raw image that other programs write
// too, and its last sector may be short.
func (img *Image) readStored(p []byte, r run) error {
	if past := r.host + int64(len(p)) - img.data.size; past > 0 && past <= img.shortSector() {
		inside := max(0, int64(len(p))-past)
		clear(p[inside:])
		if p = p[:inside]; inside == 0 {
			return nil
		}
	}
	if !binfmt.Inside(uint64(r.host), uint64(len(p)), img.data.size) {
		return &sparse.FormatError{
			Struct: "qcow2 data cluster", Field: "guest offset", Off: r.host, Value: uint64(r.off),
			Msg: fmt.Sprintf("%d bytes there are past the end of the file of %d bytes", len(p), img.data.size),
		}
	}
	return binfmt.Fill(img.data.r, img.data.size, "qcow2 data cluster", p, uint64(r.host))
}

// shortSector returns how many bytes the last sector of the external data file lacks.
func (img *Image) shortSector() int64 {
	if !img.header.HasDataFile() {
		return 0
	}
	return -img.data.size & 511
}

// readCompressed reads a part of a compressed cluster and keeps the whole cluster in the cache. If
// all of it is wanted, it keeps no copy.
func (img *Image) readCompressed(p []byte, r run) error {
	cluster := img.header.ClusterSize()
	inside := r.off & (cluster - 1)
	if int64(len(p)) == cluster {
		return img.decompress(p, r.entry, r.off)
	}
	b, err := img.cluster(r.entry, r.off-inside)
	if err != nil {
		return err
	}
	copy(p, b[inside:])
	return nil
}

// readBelow reads what unallocated clusters show: the backing file as far as it goes, then zeros.
func (v *View) readBelow(p []byte, off int64) error {
	if v.img.backing == nil {
		clear(p)
		return nil
	}
	inside, _ := sparse.ClipRead(p, off, v.img.backing.Size())
	if len(inside) > 0 {
		if _, err := sparse.ReadFull(v.img.backing, inside, off); err != nil {
			return fmt.Errorf("backing file: %w", err)
		}
	}
	clear(p[len(inside):])
	return nil
}
