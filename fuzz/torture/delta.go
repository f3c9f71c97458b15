package main

import (
	"fmt"
	"io"
	"os"
	"slices"

	"cbt/fuzz/tool"
)

// delta is one file that cbt wrote.
type delta struct {
	path     string
	old, new *state   // old is nil in a full delta
	from, to string   // keys of the states then; to is "" when new has no point
	truth    string   // ground truth of new, then
	args     []string // the command line, ending in the path
}

// diff asks for a delta from old (nil: a full one) to new.
func (h *history) diff(path string, old, new *state) *delta {
	args, d := h.diffArgs(path, old, new)
	if _, ok := h.cbt(done, args...); !ok {
		return nil
	}
	h.counts["deltas"]++
	return d
}

func (h *history) diffArgs(path string, old, new *state) ([]string, *delta) {
	d := &delta{path: path, old: old, new: new, truth: new.truth, to: new.key()}
	if new.snap == "" && !new.f.opts.raw && !new.frozen(h) {
		d.to = ""
	}
	args := []string{"diff"}
	ref, flags := h.ref(new, "new")
	if old == nil {
		args = append(args, "--full", ref)
	} else {
		d.from = old.key()
		oldRef, oldFlags := h.ref(old, "old")
		args, flags = append(args, oldRef, ref), append(oldFlags, flags...)
		flags = append(flags, h.manner()...)
	}
	d.args = append(append(args, uniq(flags)...), "-o", path)
	return d.args, d
}

// manner is how a delta is made, which must not show in what it restores.
func (h *history) manner() (flags []string) {
	if h.crng.IntN(4) == 0 {
		flags = append(flags, "--refine=off")
	}
	switch h.crng.IntN(12) {
	case 0:
		flags = append(flags, "--method=content")
	case 1:
		flags = append(flags, "--spot-check=off")
	case 2:
		flags = append(flags, "--spot-check=64K")
	case 3:
		flags = append(flags, "--workers="+pick(h.crng, "1", "2", "9"))
	}
	return flags
}

func uniq(flags []string) []string {
	var of []string
	for _, f := range flags {
		if !slices.Contains(of, f) {
			of = append(of, f)
		}
	}
	return of
}

// out is a new name for a target.
func (h *history) out(ext string) string {
	h.outs++
	return h.path(fmt.Sprintf("out/%03d%s", h.outs, ext))
}

// restore makes the state after d by one of the ways there are and compares
// it. The path of the target is returned, "" if it failed.
func (h *history) restore(d *delta, flags ...string) string {
	target := h.out(pick(h.crng, ".raw", ".img", ""))
	args := append([]string{"restore", d.path, target}, flags...)
	if h.evil {
		args = append(args, h.rawTarget())
	}
	ok := false
	switch h.crng.IntN(8) {
	case 0:
		h.garbage(target, d.truth)
		_, ok = h.cbt(done, append(args, "--in-place")...)
	case 1:
		h.garbage(target, d.truth)
		_, ok = h.cbt(done, append(args, "--overwrite")...)
	case 2:
		h.garbage(target, d.truth)
		before := hashFile(target)
		if h.refuses(args...); hashFile(target) != before {
			h.problem("restore refused an existing target and changed it: %s", target)
		}
		os.Remove(target)
		_, ok = h.cbt(done, args...)
	case 3:
		// What is nearly right is the case that --in-place is made for.
		if err := copyFile(target, d.truth); err != nil {
			h.problem("%v", err)
		}
		h.scratch(target)
		_, ok = h.cbt(done, append(args, "--in-place")...)
	default:
		_, ok = h.cbt(done, args...)
	}
	if ok && h.sameBytes(target, d.truth, "restored from "+d.path) {
		return target
	}
	return ""
}

// garbage fills a target with bytes that are nowhere right: larger, smaller
// or as large as it will be.
func (h *history) garbage(target, truth string) {
	size := int64(5000)
	if fi, err := os.Stat(truth); err == nil {
		size = fi.Size()
	}
	switch h.crng.IntN(3) {
	case 0:
		size += h.crng.Int64N(size)
	case 1:
		size = h.crng.Int64N(size)
	}
	w, err := os.Create(target)
	if err == nil {
		_, err = io.CopyN(w, junk{}, size)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		h.problem("%v", err)
	}
}

type junk struct{}

func (junk) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 0xe5
	}
	return len(p), nil
}

// scratch spoils a few bytes of a file.
func (h *history) scratch(path string) {
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		h.problem("%v", err)
		return
	}
	defer w.Close()
	fi, err := w.Stat()
	if err != nil {
		h.problem("%v", err)
		return
	}
	for range 5 {
		if _, err := w.WriteAt([]byte{0x5a}, h.crng.Int64N(fi.Size())); err != nil {
			h.problem("%v", err)
		}
	}
}

// apply brings a target through some deltas in one go.
func (h *history) apply(target string, ds ...*delta) bool {
	last := ds[len(ds)-1]
	args := []string{"apply"}
	if h.evil {
		args = append(args, h.rawTarget())
	}
	for _, d := range ds {
		args = append(args, d.path)
	}
	ok := false
	if len(ds) == 1 && h.crng.IntN(4) == 0 {
		r, err := os.Open(h.path(ds[0].path))
		if err != nil {
			h.problem("%v", err)
			return false
		}
		defer r.Close()
		_, ok = h.cbtPipe(done, r, nil, "apply", "-", target, h.rawTarget())
	} else {
		_, ok = h.cbt(done, append(args, target)...)
	}
	return ok && h.sameBytes(target, last.truth, fmt.Sprintf("applied %d up to %s", len(ds), last.path))
}

// refuseApply demands that deltas that do not fit change nothing.
func (h *history) refuseApply(target string, ds ...*delta) {
	args := []string{"apply", h.rawTarget()}
	for _, d := range ds {
		args = append(args, d.path)
	}
	before := hashFile(target)
	h.cbt(wrongBase, append(args, target)...)
	h.comparisons++
	if hashFile(target) != before {
		h.problem("apply refused %v and changed %s", args[1:], target)
	}
}

// liveDelta makes a delta right after a snapshot, as a user does every night:
// whatever happens to the images later, the chain has to give this state.
func (h *history) liveDelta(s *state) {
	if h.cfg.dry || h.spoilt || h.crng.IntN(3) == 0 {
		return
	}
	before := h.hashSources()
	path := fmt.Sprintf("live/%02d.cbt", len(h.live))
	var d *delta
	if len(h.live) == 0 {
		d = h.diff(path, nil, s)
	} else {
		prev := h.live[len(h.live)-1]
		if old := prev.new; old.alive && old.key() == prev.to && h.crng.IntN(4) > 0 {
			d = h.diff(path, old, s)
		} else {
			h.stale(prev, s)
			d = h.diffFromDelta(path, prev, s)
		}
	}
	if d != nil {
		h.live = append(h.live, d)
		h.counts["live deltas"]++
	}
	h.sameSources(before)
}

// stale makes a delta from the snapshot that the chain ends in, where
// something below it may have changed since: whatever that delta says, applied
// to the chain's end it must give the right state or be refused.
func (h *history) stale(prev *delta, new *state) {
	if !prev.new.alive || prev.new.key() == prev.to {
		return
	}
	d := h.diff(fmt.Sprintf("out/stale%d.cbt", h.outs), prev.new, new)
	target := h.restore(prev)
	if d == nil || target == "" {
		return
	}
	h.counts["stale bases"]++
	before := hashFile(target)
	r := tool.Cmd{Dir: h.dir}.Run(h.cfg.cbt, "apply", h.rawTarget(), d.path, target)
	h.note(r, "cbt", []string{"apply", h.rawTarget(), d.path, target})
	switch r.Exit {
	case done:
		h.sameBytes(target, d.truth, "applied to a base that changed below")
	case wrongBase:
		if h.comparisons++; hashFile(target) != before {
			h.problem("apply refused %s and changed %s", d.path, target)
		}
	default:
		h.problem("exit %d of cbt apply %s %s: %s", r.Exit, d.path, target, r.Message())
	}
}

// diffFromDelta goes on with a chain from its last delta: the snapshot that
// it ends in may be gone.
func (h *history) diffFromDelta(path string, old *delta, new *state) *delta {
	args, d := h.diffArgs(path, nil, new)
	for i, a := range args {
		if a == "--full" {
			args[i] = old.path
		}
	}
	d.from, d.old = old.to, old.new
	if _, ok := h.cbt(done, args...); !ok {
		return nil
	}
	h.counts["deltas over a .cbt"]++
	return d
}
