package qcow2

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"cbt/internal/binfmt"
)

// header checks what decodeHeader and Validate do not.
func (c *checker) header() {
	at := where{"header", 0, -1}
	c.use(at, 0, uint64(c.cluster), usedHeader)
	field := func(off int64) where { return where{"header", off, -1} }
	h := &c.h
	if h.Version >= 3 && h.HeaderLength%8 != 0 {
		c.corrupt(field(100), citeHeaderLength, "header_length %d is not a multiple of 8", h.HeaderLength)
	}
	if h.HeaderLength > headerSizeV3+1 {
		pad := make([]byte, min(h.HeaderLength, headerSizeMax)-headerSizeV3-1)
		if c.read(pad, headerSizeV3+1) && slices.ContainsFunc(pad, func(b byte) bool { return b != 0 }) {
			c.corrupt(field(headerSizeV3+1), citePadding, "padding is not zero")
		}
	}
	if h.Incompatible&IncompatDirty != 0 {
		c.stats.Dirty = true
		c.fault(Note, field(72), citeDirty, "the image is dirty: it was not closed, or refcounts were postponed; they may be wrong, and reading does not need them")
	}
	if h.Incompatible&IncompatCorrupt != 0 {
		c.fault(Note, field(72), citeCorrupt, "the image is marked corrupt")
	}
	if h.Autoclear&AutoclearRawData != 0 {
		if !h.HasDataFile() {
			c.corrupt(field(88), citeAutoRawFile, "raw external data without an external data file")
		}
		if h.BackingFileOffset != 0 {
			c.corrupt(field(8), citeRawBacking, "a backing file, and raw external data")
		}
	}
}

// encryption counts the clusters that hold the LUKS header.
func (c *checker) encryption() {
	i := slices.IndexFunc(c.ext.all, func(e Extension) bool { return e.Type == ExtensionEncryption })
	if i < 0 {
		if c.h.CryptMethod == CryptLUKS {
			c.corrupt(where{"header", 32, -1}, citeLUKSPresent, "encrypted with LUKS, and no pointer to its header")
		}
		return
	}
	e := c.ext.all[i]
	at := where{"encryption header pointer", e.Off, -1}
	if c.h.CryptMethod != CryptLUKS || e.Len < 16 {
		c.corrupt(at, citeLUKSPresent, "%d bytes, and crypt_method %d", e.Len, c.h.CryptMethod)
		return
	}
	var b [16]byte
	if !c.read(b[:], e.Off) {
		return
	}
	off, n := binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])
	if off%uint64(c.cluster) != 0 {
		c.corrupt(at, citeLUKSAligned, "offset 0x%x is not cluster aligned", off)
		return
	}
	if !c.inside(at, off, n, citeLUKSPresent) {
		return
	}
	c.use(at, int64(off), n, usedLUKS)
}

// read fills p with the bytes at off, and with zeros past the end of the file. It reports whether
// the file could be read, and keeps the first error.
func (c *checker) read(p []byte, off int64) bool {
	n := 0
	if off < c.size {
		var err error
		n, err = c.r.ReadAt(p[:min(int64(len(p)), c.size-off)], off)
		if err != nil && err != io.EOF {
			if c.err == nil {
				c.err = fmt.Errorf("read %d bytes of metadata at 0x%x: %w", len(p), off, err)
			}
			return false
		}
	}
	clear(p[n:])
	return true
}

// inside reports whether [off, off+n) lies in the file. If not, it adds a corruption.
func (c *checker) inside(at where, off, n uint64, cite string) bool {
	if binfmt.Inside(off, n, c.size) {
		return true
	}
	c.corrupt(at, cite, "%d bytes at 0x%x are not inside the file of %d bytes", n, off, c.size)
	return false
}

// use counts one more reference to each cluster of [off, off+n), as far as the range lies in the
// file. It adds a corruption if these clusters have other uses that must not share them, and
// returns the uses of the first such cluster.
func (c *checker) use(at where, off int64, n uint64, u cell) cell {
	if off >= c.end || n == 0 {
		return 0
	}
	last := c.end - 1
	if n < uint64(c.end-off) {
		last = off + int64(n) - 1
	}
	var shared, first int64
	var with cell
	for cl := off / c.cluster; cl <= last/c.cluster; cl++ {
		if w := conflict(c.used.add(cl, 1, u), u); w != 0 {
			if shared++; shared == 1 {
				first, with = cl*c.cluster, w
			}
		}
	}
	if shared > 0 {
		c.shared(at, first, shared, with)
	}
	return with
}

func (c *checker) shared(at where, first, n int64, with cell) {
	if n == 1 {
		c.corrupt(at, citeAllocation, "cluster 0x%x is used by %s already", first, with.use())
		return
	}
	c.corrupt(at, citeAllocation, "%d clusters are used already, the first at 0x%x by %s", n, first, with.use())
}

// conflict returns the uses in was that cannot share a cluster with u.
func conflict(was, u cell) cell {
	const data = usedData | usedCompressed
	switch {
	case u&usedAlone != 0:
		return was & (usedAlone | usedL2 | data)
	case u == usedL2:
		return was & (usedAlone | data)
	}
	return was & (usedAlone | usedL2)
}

// spend reports whether n more bytes may be walked of tables that could overlap one another. It
// refuses once these tables add up to more than the file, for then they do overlap.
func (c *checker) spend(at where, n int64) bool {
	if n > c.size-c.walked {
		c.corrupt(at, citeAllocation, "not followed: the tables before it are as long as the file, so that they overlap")
		return false
	}
	c.walked += n
	return true
}
