package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"cbt/fuzz/tool"
)

// commit merges the top file into the one below, which changes what the
// snapshots of the top file read.
func (h *history) commit() {
	if len(h.stack) < 2 {
		return
	}
	top, base := h.top(), h.stack[len(h.stack)-2]
	args := []string{"commit", "-q", "-f", "qcow2"}
	if h.chance(50) {
		args = append(args, "-d")
	}
	done := h.qemu("qemu-img", append(args, top.name)...)
	h.maps = nil
	h.written(base) // it may have failed half way
	if !done {
		return
	}
	h.counts["commits"]++
	if !h.chance(50) {
		return
	}
	// Go on in the lower file; what it held when the overlay came is gone, and
	// so is what another file, left behind by a rebase, read through it.
	h.drop(top)
	h.stack = h.stack[:len(h.stack)-1]
	for _, s := range h.states {
		if s.f == base && s.snap == "" || s.f != base && s.f.over(base) {
			s.alive = false
		}
	}
	if base.opts.raw {
		h.overlay()
	}
}

// rebase puts the top file over another file: one further down, a new one, or
// none. Safe rebases keep the active state, none keeps the snapshots.
func (h *history) rebase() {
	top := h.top()
	if top.opts.dataRaw || len(h.stack) < 2 && h.chance(60) {
		return
	}
	var to *file
	rest := []*file{}
	switch h.rng.IntN(3) {
	case 0:
	case 1:
		if len(h.stack) > 2 {
			rest = h.stack[:len(h.stack)-2]
			to = rest[len(rest)-1]
		}
	case 2:
		o := randomOptions(h.rng)
		if h.chance(40) {
			o = options{raw: true}
		}
		old := h.stack
		h.stack = nil
		to = h.createFile(o, nil, randomSize(h.rng, o.maxSize()))
		rest, h.stack = h.stack, old
		if to == nil {
			return
		}
		// The same requests on both: a safe rebase then leaves blocks out.
		h.batch(to, 1+h.rng.IntN(8))
		if !sees(top, to) {
			return
		}
	}
	args := []string{"rebase", "-q", "-f", "qcow2"}
	if h.chance(30) {
		args = append(args, "-u")
	}
	if to == nil {
		args = append(args, "-b", "")
	} else {
		args = append(args, "-b", h.nameBelow(top, to), "-F", to.format())
	}
	if !h.qemu("qemu-img", append(args, top.name)...) {
		return
	}
	h.counts["rebases"]++
	h.maps = nil
	top.base = to
	h.stack = append(append([]*file{}, rest...), top)
	if to != nil && h.find(to, "") == nil {
		h.newState(to, "")
	}
	h.rebased(top)
}

// sees is true when base lies where f may name it: in or below f's directory.
func sees(f, base *file) bool {
	return filepath.Dir(f.name) == "." || filepath.Dir(base.name) == "sub"
}

// writeBelow writes to a file that lies under another one.
func (h *history) writeBelow() {
	if len(h.stack) < 2 {
		return
	}
	f := h.stack[h.rng.IntN(len(h.stack)-1)]
	h.batch(f, 1+h.rng.IntN(4))
	h.counts["writes under an overlay"]++
	h.maps = nil
	h.written(f)
}

// written takes the ground truth again of all that reads f's active state.
func (h *history) written(f *file) {
	h.again(func(s *state) bool { return s.f == f && s.snap == "" || s.f != f && s.f.over(f) })
}

// rebased takes the ground truth of f's snapshots again.
func (h *history) rebased(f *file) {
	h.again(func(s *state) bool { return s.f.over(f) })
}

func (h *history) again(which func(*state) bool) {
	for _, s := range h.states {
		if s.alive && which(s) {
			s.epoch++
			s.alive = h.truthAgain(s)
		}
	}
}

// truthAgain reads a state through a copy of its file with the snapshot
// applied: `qemu-img convert -l` reads with the active state's size.
func (h *history) truthAgain(s *state) bool {
	if s.snap == "" {
		ok := h.takeTruth(s, s.f.name, s.f.format())
		s.f.size = s.size
		return ok
	}
	tmp := filepath.Join(filepath.Dir(s.f.name), "copy-of.qcow2")
	defer os.Remove(h.path(tmp))
	if err := copyFile(h.path(tmp), h.path(s.f.name)); err != nil {
		h.problem("%v", err)
		return false
	}
	fmt.Fprintf(&h.log, "cp %s %s\n", s.f.name, tmp)
	for _, name := range s.f.bitmaps { // under a recording bitmap none is applied
		h.qemu("qemu-img", "bitmap", "--remove", "-f", "qcow2", tmp, name)
	}
	return h.qemu("qemu-img", "snapshot", "-a", s.snap, tmp) && h.takeTruth(s, tmp, "qcow2")
}

// selfCheck takes all ground truth again at the end of a history: what QEMU
// reads then is what it read when the snapshot was taken, or the history
// missed a change from below.
func (h *history) selfCheck() {
	for _, s := range h.states {
		if !s.alive {
			continue
		}
		before := s.truth
		if !h.truthAgain(s) {
			h.counts["ground truth not taken again"]++
			continue
		}
		h.sameBytes(s.truth, before, "ground truth of "+s.String()+" taken again")
	}
}

func copyFile(to, from string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}

// finish takes the ground truth of the active state and looks whether QEMU
// itself finds its images sound.
func (h *history) finish() {
	if h.newState(h.top(), "") == nil {
		return
	}
	h.counts["states"] += len(h.states)
	for _, f := range h.stack {
		if f.opts.raw {
			continue
		}
		args := []string{"check", "-q", "-f", "qcow2", f.name}
		r := tool.Cmd{Dir: h.dir}.Run("qemu-img", args...)
		h.note(r, "qemu-img", args)
		if r.Exit != 0 && r.Exit != leaks {
			h.spoil()
		}
		f.leaks = r.Exit == leaks
	}
}

// leaks is qemu-img check's exit code when clusters are lost but no data is.
const leaks = 3

// tip is the active state of the top file.
func (h *history) tip() *state { return h.find(h.top(), "") }
