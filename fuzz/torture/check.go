package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cbt/fuzz/tool"
)

// check asks cbt for everything it should know about the finished history.
func (h *history) check() {
	before := h.hashSources()
	h.liveChain()
	chain := h.chain()
	h.pairs(chain)
	h.wrongBases(chain)
	h.readings()
	h.bitmapDeltas()
	h.otherTargets(chain)
	h.severalDisks(chain)
	h.contents()
	h.againstOther(chain)
	h.sameSources(before)
	h.whileWritten(chain)
}

// points are the states that something can be built on.
func (h *history) points() []*state {
	var of []*state
	for _, s := range h.states {
		if s.alive && (s.snap != "" || s.frozen(h)) {
			of = append(of, s)
		}
	}
	return of
}

// liveChain restores every state of the chain made along the way.
func (h *history) liveChain() {
	target := ""
	for i, d := range h.live {
		r := h.restore(d)
		if target == "" || h.crng.IntN(3) == 0 {
			target = r
			continue
		}
		if !h.apply(target, h.live[i]) {
			target = ""
		}
	}
	if len(h.live) > 0 {
		h.cbt(done, "verify", "live")
	}
	if len(h.live) > 1 {
		i := 1 + h.crng.IntN(len(h.live)-1)
		h.interrupted(h.live[i-1], h.live[i])
		if target := h.restore(h.live[i-1]); target != "" {
			h.touched(target, h.live[i])
		}
	}
}

// chain makes a full delta of one state and deltas through up to five later
// ones, restores each, and applies them one by one and several at once.
func (h *history) chain() []*delta {
	states := h.points()
	for len(states) > 5 {
		i := h.crng.IntN(len(states))
		states = append(states[:i:i], states[i+1:]...)
	}
	if tip := h.tip(); tip != nil && (len(states) == 0 || h.crng.IntN(2) == 0) {
		states = append(states, tip)
	}
	var ds []*delta
	for i, s := range states {
		var old *state
		if i > 0 {
			old = states[i-1]
		}
		d := h.diff(fmt.Sprintf("deltas/%02d.cbt", i), old, s)
		if d == nil {
			return ds
		}
		ds = append(ds, d)
	}
	for _, d := range ds {
		h.restore(d)
	}
	if len(ds) < 2 {
		return ds
	}
	target := h.restore(ds[0])
	for i := 1; i < len(ds) && target != ""; {
		n := 1 + h.crng.IntN(len(ds)-i)
		if !h.apply(target, ds[i:i+n]...) {
			break
		}
		i += n
	}
	h.cbt(done, "verify", "deltas")
	h.sameAgain(ds[h.crng.IntN(len(ds))])
	return ds
}

// sameAgain makes one delta a second time: the same input gives the same
// bytes, whatever the number of workers.
func (h *history) sameAgain(d *delta) {
	again := fmt.Sprintf("out/again%d.cbt", h.outs)
	args := append(d.args[:len(d.args)-1:len(d.args)-1], again)
	if _, ok := h.cbt(done, args...); ok {
		h.sameBytes(h.path(again), h.path(d.path), "made a second time")
	}
}

// pairs makes deltas between random states of the chain in any direction, and
// to the tip, and applies them.
func (h *history) pairs(chain []*delta) {
	ends := h.points()
	if tip := h.tip(); tip != nil {
		ends = append(ends, tip)
	}
	if len(chain) == 0 || chain[0].to == "" || len(ends) < 2 {
		return
	}
	for i := range 3 {
		a := chain[h.crng.IntN(len(chain))]
		b := ends[h.crng.IntN(len(ends))]
		if a.to == "" || a.new == b {
			continue
		}
		d := h.diff(fmt.Sprintf("out/pair%d.cbt", i), a.new, b)
		if d == nil {
			continue
		}
		h.changes(a.new, b)
		if h.crng.IntN(2) == 0 {
			h.restore(d, "--chain", "deltas")
		}
		target := h.restore(a)
		if target == "" || !h.apply(target, d) {
			continue
		}
		if d.to == "" {
			h.refuseApply(target, d)
		}
		if h.crng.IntN(2) == 0 {
			h.cbt(done, append([]string{"verify", "--against", target, d.path, "--chain", "deltas"}, h.rawFlags("")...)...)
		}
	}
}

// wrongBases applies deltas to states that they do not belong to.
func (h *history) wrongBases(chain []*delta) {
	if len(chain) < 2 {
		return
	}
	i, j := h.crng.IntN(len(chain)), 1+h.crng.IntN(len(chain)-1)
	if chain[i].to == chain[j].from {
		i = (i + 1) % len(chain)
	}
	if target := h.restore(chain[i]); target != "" && chain[i].to != chain[j].from {
		h.refuseApply(target, chain[j])
	}
}

// bitmapDeltas uses what the bitmaps recorded since their snapshots.
func (h *history) bitmapDeltas() {
	tip := h.tip()
	for i, b := range h.maps {
		if tip == nil || !b.since.alive || b.since.epoch != b.epoch {
			continue
		}
		args, d := h.diffArgs(fmt.Sprintf("out/bitmap%d.cbt", i), b.since, tip)
		args = slices.DeleteFunc(args, func(a string) bool { return strings.HasPrefix(a, "--method") })
		args = append(args, "--bitmap", b.name)
		if b.inUse {
			h.refuses(args...)
			h.counts["bitmaps in use"]++
			continue
		}
		if _, ok := h.cbt(done, args...); !ok {
			continue
		}
		h.counts["bitmap deltas"]++
		base := h.diff(fmt.Sprintf("out/base%d.cbt", i), nil, b.since)
		if base == nil {
			continue
		}
		target := h.restore(base)
		if target == "" {
			continue
		}
		known := len(h.problems)
		if !h.apply(target, d) && len(h.problems) == known+1 && h.missedByQEMU(tip.f.name, b.name, target, d.truth) {
			h.problems = h.problems[:known]
			h.counts["writes that QEMU's bitmap misses"]++
		}
	}
}

// otherTargets restores to qcow2 and through a pipe.
func (h *history) otherTargets(chain []*delta) {
	if len(chain) == 0 {
		return
	}
	d := chain[h.crng.IntN(len(chain))]
	target := h.out(".qcow2")
	if _, ok := h.cbt(done, "restore", d.path, target, "--target-format", "qcow2"); ok {
		if !h.qemu("qemu-img", "check", "-q", "-f", "qcow2", target) {
			h.problem("qemu-img check finds faults in %s", target)
		}
		raw := h.out(".raw")
		if h.qemu("qemu-img", "convert", "-f", "qcow2", "-O", "raw", target, raw) {
			h.cutRounding(raw, d.truth)
			h.sameBytes(raw, d.truth, "qcow2 target of "+d.path)
		} else {
			h.problem("qemu-img cannot read %s", target)
		}
	}
	if d := chain[0]; h.crng.IntN(2) == 0 {
		r, err := os.Open(h.path(d.path))
		if err != nil {
			h.problem("%v", err)
			return
		}
		defer r.Close()
		target := h.out(".raw")
		if _, ok := h.cbtPipe(done, r, nil, "restore", "-", target, h.rawTarget()); ok {
			h.sameBytes(target, d.truth, "restored from a pipe")
		}
	}
}

// cutRounding takes off what QEMU adds to sizes that 512 does not divide.
func (h *history) cutRounding(raw, truth string) {
	fi, err := os.Stat(truth)
	if err == nil && fi.Size()%512 != 0 {
		err = os.Truncate(raw, fi.Size())
	}
	if err != nil {
		h.problem("%v", err)
	}
}

// refuses demands that cbt fails with a reason, not with a crash.
func (h *history) refuses(args ...string) {
	r := tool.Cmd{Dir: h.dir}.Run(h.cfg.cbt, args...)
	h.note(r, "cbt", args)
	h.comparisons++
	if r.Exit <= done || r.Exit > busy || bytes.Contains(r.Stderr, []byte("panic")) {
		h.problem("exit %d, want a refusal: cbt %s: %s", r.Exit, strings.Join(args, " "), r.Message())
	}
}

// hashSources is one line for every file that the history consists of: cbt
// must not change content, size or time of any.
func (h *history) hashSources() string {
	var b strings.Builder
	for _, dir := range []string{".", "sub"} {
		entries, err := os.ReadDir(h.path(dir))
		if err != nil {
			h.problem("%v", err)
		}
		for _, e := range entries {
			if e.Type() != fs.FileMode(0) {
				continue
			}
			path := h.path(filepath.Join(dir, e.Name()))
			fi, err := os.Stat(path)
			if err != nil {
				h.problem("%v", err)
				continue
			}
			fmt.Fprintf(&b, "%s %d %v %s\n", path, fi.Size(), fi.ModTime(), hashFile(path))
		}
	}
	return b.String()
}

func (h *history) sameSources(before string) {
	h.comparisons++
	if after := h.hashSources(); after != before {
		h.problem("cbt changed a source: before %s after %s", before, after)
	}
}

func hashFile(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}
