package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// options are those of `qemu-img create -f qcow2`.
type options struct {
	raw      bool // a raw file: no other option applies
	v2       bool
	cluster  int64
	refbits  int
	extl2    bool
	zstd     bool
	lazy     bool
	prealloc string
	data     string // external data file, beside the image
	dataRaw  bool
}

func (o options) args() string {
	s := []string{"cluster_size=" + strconv.FormatInt(o.cluster, 10)}
	if o.v2 {
		return s[0] + ",compat=0.10" + o.preallocArg()
	}
	s = append(s, "compat=1.1", "refcount_bits="+strconv.Itoa(o.refbits))
	if o.extl2 {
		s = append(s, "extended_l2=on")
	}
	if o.zstd {
		s = append(s, "compression_type=zstd")
	}
	if o.lazy {
		s = append(s, "lazy_refcounts=on")
	}
	if o.data != "" {
		s = append(s, "data_file="+o.data)
	}
	if o.dataRaw {
		s = append(s, "data_file_raw=on")
	}
	return strings.Join(s, ",") + o.preallocArg()
}

func (o options) preallocArg() string {
	if o.prealloc == "" {
		return ""
	}
	return ",preallocation=" + o.prealloc
}

// maxSize keeps the tables of small clusters small.
func (o options) maxSize() int64 {
	if o.raw {
		return 64 << 20
	}
	return min(o.cluster<<13, 64<<20)
}

func randomOptions(r *rand.Rand) options {
	o := options{cluster: 1 << (9 + r.IntN(13)), refbits: 16}
	if r.IntN(2) == 0 {
		o.cluster = pick(r, int64(65536), 65536, 65536, 4096, 2<<20)
	}
	if r.IntN(100) < 20 {
		o.v2 = true
	} else {
		if r.IntN(100) < 40 {
			o.refbits = 1 << r.IntN(7)
		}
		o.extl2 = r.IntN(100) < 25
		o.zstd = r.IntN(100) < 35
		o.lazy = r.IntN(100) < 10
	}
	if o.extl2 {
		o.cluster = max(o.cluster, 16384)
	}
	if r.IntN(100) < 15 {
		o.prealloc = pick(r, "metadata", "metadata", "falloc", "full")
	}
	return o
}

// randomSize is spread over the powers of two from 64 KiB to limit: often a
// multiple of nothing but 512.
func randomSize(r *rand.Rand, limit int64) int64 {
	bits := 16
	for int64(1)<<bits < limit {
		bits++
	}
	n := int64(1) << (16 + r.IntN(bits-16+1))
	if r.IntN(100) < 70 {
		n += r.Int64N(n) &^ 511
	}
	return max(min(n, limit), 65536)
}

// createFile makes an image over base, which may be nil, and puts it on top
// of the stack.
func (h *history) createFile(o options, base *file, size int64) *file {
	f := &file{opts: o, size: size, base: base}
	dir := "."
	if base != nil && filepath.Dir(base.name) == "sub" && h.chance(50) || base == nil && h.chance(30) {
		dir = "sub"
	}
	// Numbers come back after a file was removed: a new image under an old name.
	for f.num = 1; h.names[f.num]; f.num++ {
	}
	h.names[f.num] = true
	ext := ".qcow2"
	if o.raw {
		ext = pick(h.rng, ".raw", ".img")
	}
	f.name = filepath.Join(dir, fmt.Sprintf("disk%d%s", f.num, ext))
	if o.raw {
		// qemu-img rounds sizes up to 512, a raw file need not be.
		if h.chance(40) {
			f.size -= h.rng.Int64N(511)
		}
		if !h.mustWrite(f.name, f.size) {
			return nil
		}
		fmt.Fprintf(&h.log, "truncate -s %d %s\n", f.size, f.name)
		h.stack = append(h.stack, f)
		return f
	}
	if o.data != "" {
		f.opts.data = fmt.Sprintf("disk%d.data", f.num)
		// QEMU takes a relative name from the working directory, wherever the
		// image is: such a name means one thing only for an image that is here.
		if dir != "." || h.chance(30) {
			f.opts.data = h.path(filepath.Join(dir, f.opts.data))
		}
	}
	for {
		args := []string{"create", "-q", "-f", "qcow2"}
		args = append(args, "-o", f.opts.args())
		if base != nil {
			args = append(args, "-b", h.nameBelow(f, base), "-F", base.format())
		}
		args = append(args, f.name)
		if base == nil || h.chance(50) {
			args = append(args, strconv.FormatInt(f.size, 10))
		} else {
			f.size = (base.size + 511) &^ 511
		}
		if h.qemu("qemu-img", args...) {
			break
		}
		// Which options go together is QEMU's business: take the rest of them.
		switch {
		case f.opts.prealloc != "":
			f.opts.prealloc = ""
		case f.opts.dataRaw:
			f.opts.dataRaw = false
		default:
			h.spoil()
			return nil
		}
	}
	h.stack = append(h.stack, f)
	h.countOptions(f)
	return f
}

func (f *file) format() string {
	if f.opts.raw {
		return "raw"
	}
	return "qcow2"
}

// nameBelow is the name under which f names base: relative to f's directory
// or absolute.
func (h *history) nameBelow(f, base *file) string {
	rel, err := filepath.Rel(filepath.Dir(f.name), base.name)
	if err != nil || h.chance(15) {
		return h.path(base.name)
	}
	return rel
}

func (h *history) mustWrite(name string, size int64) bool {
	w, err := os.Create(h.path(name))
	if err == nil {
		err = w.Truncate(size)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		h.problem("%v", err)
	}
	return err == nil
}

func (h *history) countOptions(f *file) {
	o := f.opts
	h.counts["images"]++
	for name, on := range map[string]bool{
		"v2": o.v2, "extended_l2": o.extl2, "zstd": o.zstd, "data_file": o.data != "", "data_file_raw": o.dataRaw,
		"lazy_refcounts": o.lazy, "refcount_bits<16": o.refbits < 16, "refcount_bits>16": o.refbits > 16,
		"cluster<4K": o.cluster < 4096, "cluster>=1M": o.cluster >= 1<<20, "overlays": f.base != nil,
		"raw backing": f.base != nil && f.base.opts.raw, "preallocation=" + o.prealloc: o.prealloc != "",
	} {
		if on {
			h.counts[name]++
		}
	}
}
