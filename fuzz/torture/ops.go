package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// make plays the history: phases of writing with something done to the images
// between them, and a snapshot at the end of most.
func (h *history) make() {
	if h.bottom(); h.spoilt {
		return
	}
	phases := 2 + h.rng.IntN(6)
	for i := range phases {
		h.batch(h.top(), 1+h.rng.IntN(14))
		for h.chance(45) {
			h.operation()
		}
		if h.spoilt {
			return
		}
		if i < phases-1 || h.chance(50) {
			h.freeze()
		}
		if h.chance(8) {
			h.freeze() // nothing changed
		}
	}
	if !h.spoilt && h.chance(60) {
		h.batch(h.top(), 1+h.rng.IntN(6))
	}
	if h.chance(8) {
		h.killedBatch(h.top())
	}
	h.finish()
}

// bottom makes the lowest files.
func (h *history) bottom() {
	if h.chance(30) {
		f := h.createFile(options{raw: true}, nil, randomSize(h.rng, 64<<20))
		if f == nil {
			return
		}
		if h.chance(85) {
			h.batch(f, 1+h.rng.IntN(8))
		}
		h.overlay()
		return
	}
	o := randomOptions(h.rng)
	if !o.v2 && h.chance(12) {
		o.data, o.dataRaw = "yes", h.chance(40)
	}
	h.createFile(o, nil, randomSize(h.rng, o.maxSize()))
}

// operation does one thing to the images that is no guest's write.
func (h *history) operation() {
	top := h.top()
	switch x := h.rng.IntN(100); {
	case x < 22:
		h.resize(top)
	case x < 42:
		h.applySnapshot(top)
	case x < 58:
		h.deleteSnapshot(top)
	case x < 68:
		h.commit()
	case x < 79:
		h.rebase()
	case x < 88:
		h.overlay()
	case x < 91:
		h.writeBelow()
	case x < 94:
		if top.opts.v2 && h.qemu("qemu-img", "amend", "-f", "qcow2", "-o", "compat=1.1", top.name) {
			top.opts.v2 = false
			h.counts["v2 made v3"]++
		}
	default:
		h.batch(top, 1+h.rng.IntN(5))
	}
}

// freeze takes a snapshot of either kind, with its ground truth, and perhaps
// starts a bitmap at it.
func (h *history) freeze() {
	top := h.top()
	if top.opts.data != "" || top.opts.refbits == 1 || h.chance(15) {
		h.overlay()
		return
	}
	name := h.snapName(top)
	if !h.qemu("qemu-img", "snapshot", "-c", name, top.name) {
		return
	}
	h.counts["snapshots"]++
	s := h.newState(top, name)
	if s == nil {
		return
	}
	if !top.opts.v2 && len(h.maps) < 2 && h.chance(25) {
		args := []string{"bitmap", "--add"}
		if h.chance(60) {
			args = append(args, "-g", strconv.Itoa(512<<h.rng.IntN(10)))
		}
		b := bitmap{name: fmt.Sprintf("map%d", h.truths), since: s, epoch: s.epoch}
		if h.qemu("qemu-img", append(args, "-f", "qcow2", top.name, b.name)...) {
			h.maps, top.bitmaps = append(h.maps, b), append(top.bitmaps, b.name)
			h.counts["bitmaps"]++
		}
	}
	h.liveDelta(s)
}

// newState takes the ground truth of f's active state, as the content of the
// snapshot just taken (snap "": of f itself).
func (h *history) newState(f *file, snap string) *state {
	s := &state{f: f, snap: snap, seq: h.truths, alive: true}
	if !h.takeTruth(s, f.name, f.format()) {
		return nil
	}
	f.size = s.size
	h.states = append(h.states, s)
	return s
}

func (h *history) takeTruth(s *state, name, format string) bool {
	s.truth = h.path(fmt.Sprintf("truth/%03d.raw", h.truths))
	h.truths++
	if format == "raw" {
		// As it is: convert rounds the size up.
		if err := copyFile(s.truth, h.path(name)); err != nil {
			h.problem("%v", err)
			return false
		}
	} else if !h.qemu("qemu-img", "convert", "-f", format, "-O", "raw", name, s.truth) {
		h.spoil()
		return false
	}
	fi, err := os.Stat(s.truth)
	if err != nil {
		h.problem("%v", err)
		return false
	}
	s.size = fi.Size()
	return true
}

// overlay freezes the top file and goes on in a new one over it.
func (h *history) overlay() {
	if len(h.stack) >= 4 {
		return
	}
	top := h.top()
	s := h.newState(top, "")
	if s == nil {
		return
	}
	o := randomOptions(h.rng)
	if !o.v2 && h.chance(6) {
		o.data = "yes"
	}
	size := (top.size + 511) &^ 511
	if h.chance(30) {
		size = randomSize(h.rng, o.maxSize())
	}
	if h.createFile(o, top, min(size, 64<<20)) == nil {
		return
	}
	h.maps = nil
	if !top.opts.raw || h.chance(50) {
		h.liveDelta(s)
	}
}

func (h *history) resize(f *file) {
	size := f.size
	switch h.rng.IntN(4) {
	case 0:
		size += 512 * (h.rng.Int64N(40) - 20)
	case 1:
		size = size / 3 * (1 + h.rng.Int64N(2))
	default:
		size += h.rng.Int64N(size)
	}
	size = max(min(size&^511, f.opts.maxSize()), 4096)
	args := []string{"resize", "-q", "-f", f.format()}
	if size < f.size {
		args = append(args, "--shrink")
	} else if h.chance(20) {
		args = append(args, "--preallocation="+pick(h.rng, "metadata", "falloc", "full"))
	}
	if h.qemu("qemu-img", append(args, f.name, strconv.FormatInt(size, 10))...) {
		h.counts["resizes"]++
		f.size = size
	}
}

func (h *history) snapshotsOf(f *file) []*state {
	var of []*state
	for _, s := range h.states {
		if s.alive && s.f == f && s.snap != "" {
			of = append(of, s)
		}
	}
	return of
}

func (h *history) applySnapshot(f *file) {
	of := h.snapshotsOf(f)
	if len(of) == 0 {
		return
	}
	s := of[h.rng.IntN(len(of))]
	for _, b := range h.maps { // QEMU applies none under a recording bitmap, and no bitmap records this
		if h.chance(70) {
			h.qemu("qemu-img", "bitmap", "--remove", "-f", "qcow2", f.name, b.name)
		}
	}
	h.maps = nil
	if h.qemu("qemu-img", "snapshot", "-a", s.snap, f.name) {
		h.counts["snapshots applied"]++
		f.size = s.size
	}
}

func (h *history) deleteSnapshot(f *file) {
	of := h.snapshotsOf(f)
	if len(of) == 0 {
		return
	}
	s := of[h.rng.IntN(len(of))]
	if h.qemu("qemu-img", "snapshot", "-d", s.snap, f.name) {
		h.counts["snapshots deleted"]++
		s.alive = false
	}
}

// drop forgets a file that was removed; its name comes back.
func (h *history) drop(f *file) {
	for _, s := range h.states {
		if s.f == f {
			s.alive = false
		}
	}
	os.Remove(h.path(f.name))
	fmt.Fprintf(&h.log, "rm %s\n", f.name)
	if f.opts.data != "" {
		data := f.opts.data
		if !filepath.IsAbs(data) {
			data = h.path(filepath.Join(filepath.Dir(f.name), data))
		}
		os.Remove(data)
	}
	delete(h.names, f.num)
}
