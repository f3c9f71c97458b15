package main

import (
	"strconv"
	"strings"
)

// batch runs n random requests on f in one qemu-io process.
func (h *history) batch(f *file, n int) {
	args := []string{"-f", f.format(), "-t", "unsafe"}
	if h.chance(70) {
		args = append(args, "-d", "unmap")
	}
	for range n {
		for _, c := range h.request(f) {
			args = append(args, "-c", c)
		}
	}
	if h.evil {
		args = append(args, "-c", "write -q -s "+h.pat[len(h.pat)-1]+" 0 4096")
	}
	h.qemu("qemu-io", append(args, f.name)...)
	h.counts["requests"] += n
}

// killedBatch ends with the writer killed: a lazy_refcounts image stays dirty,
// bitmaps stay in use.
func (h *history) killedBatch(f *file) {
	args := []string{"-f", f.format()}
	for range 3 {
		for _, c := range h.request(f) {
			args = append(args, "-c", c)
		}
	}
	h.qemu("qemu-io", append(args, "-c", "flush", "-c", "sigraise 9", f.name)...)
	h.counts["writers killed"]++
	for i := range h.maps {
		h.maps[i].inUse = true
	}
}

// request is what a guest asks for once, as one or two commands.
func (h *history) request(f *file) []string {
	r := h.rng
	off, n := h.place(f)
	switch x := r.IntN(100); {
	case x < 10:
		return []string{"write -q -z " + span(off, n)}
	case x < 20:
		return []string{"write -q -z -u " + span(off, n)}
	case x < 33:
		return []string{"discard -q " + span(off, n)}
	case x < 48 && !f.opts.raw:
		return h.compressed(f, off, n)
	case x < 49 && !f.opts.raw && f.opts.data == "":
		// Machine state lies behind the disk, in the same tables.
		return []string{"write -q -b " + h.pattern() + span(r.Int64N(4)*f.opts.cluster, f.opts.cluster)}
	}
	return []string{"write -q " + h.pattern() + span(off, n)}
}

// compressed writes whole clusters, or up to the end. QEMU refuses that where
// something is stored, so that is cut off first, most times; and the places
// are few, so that one compressed cluster follows another there.
func (h *history) compressed(f *file, off, n int64) []string {
	c := f.opts.cluster
	off = off / c * c
	if packed := c * pick(h.rng, int64(3), 5, 8); packed < f.size && h.chance(66) {
		off = packed
	}
	at := span(off, min((n+c-1)/c*c, f.size-off))
	write := "write -q -c " + h.pattern() + at
	switch h.rng.IntN(4) {
	case 0:
		return []string{write}
	case 1:
		return []string{"discard -q " + at, write}
	}
	return []string{"write -q -z -u " + at, write}
}

func span(off, n int64) string {
	return strconv.FormatInt(off, 10) + " " + strconv.FormatInt(n, 10)
}

// pattern prefers few contents, so that blocks come back to what they were.
func (h *history) pattern() string {
	switch x := h.rng.IntN(100); {
	case x < 30:
		return "-P " + pick(h.rng, "0xaa", "0xbb", "0xcc") + " "
	case x < 36:
		return "-P 0 "
	case x < 45:
		return "-P " + strconv.Itoa(1+h.rng.IntN(255)) + " "
	}
	return "-s " + h.pat[h.rng.IntN(len(h.pat)-1)] + " "
}

// place chooses where a request goes: at one of a few spots that come again
// and again, on clusters, on 4 KiB blocks, anywhere.
func (h *history) place(f *file) (off, n int64) {
	r := h.rng
	unit := int64(4096)
	if !f.opts.raw {
		unit = f.opts.cluster
	}
	if len(h.hot) == 0 {
		for range 6 {
			u := pick(r, unit, unit, 4096, 512)
			h.hot = append(h.hot, hotspot{r.Int64N(f.size/u+1) * u, u * (1 + r.Int64N(3))})
		}
		h.hot = append(h.hot, hotspot{0, unit}, hotspot{(f.size - 1) / unit * unit, unit})
	}
	switch x := r.IntN(100); {
	case x < 35:
		s := h.hot[r.IntN(len(h.hot))]
		off, n = s.off, s.n
	case x < 60:
		off, n = r.Int64N(f.size/unit+1)*unit, unit*(1+r.Int64N(4))
	case x < 78:
		off, n = r.Int64N(f.size/4096+1)*4096, 4096*(1+r.Int64N(40))
	case x < 98:
		off, n = r.Int64N(f.size), 1+r.Int64N(pick(r, int64(10), 600, 5000, 200000))
	case x < 99:
		off, n = 0, f.size
	default:
		off, n = f.size/2, f.size
	}
	if off >= f.size {
		off = max(f.size-n, 0)
	}
	n = min(n, f.size-off, 8<<20)
	return off, n
}

// snapName is a new name among those of f: seldom a plain one. Names of digits
// only would be taken for IDs by qemu-img.
func (h *history) snapName(f *file) string {
	for {
		name := pick(h.rng, "s%d", "s%d", "s%d", "tag %d", "größe%d", "a,b=%d", "x@y%d", "-d%d", "%d%%", "'q\"%d", "../s%d")
		name = strings.Replace(name, "%%", "%", 1)
		name = strings.Replace(name, "%d", strconv.Itoa(h.rng.IntN(6)), 1)
		if h.find(f, name) == nil {
			return name
		}
	}
}

func (h *history) find(f *file, snap string) *state {
	for _, s := range h.states {
		if s.alive && s.f == f && s.snap == snap {
			return s
		}
	}
	return nil
}
