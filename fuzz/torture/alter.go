package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"cbt/fuzz/tool"
)

// interrupted applies a delta to the state that another one leads to, ends that in
// the middle, lets others write to the target, the chain or nothing, and runs it
// again: it ends with the right bytes, or is refused and writes nothing.
func (h *history) interrupted(from, d *delta) {
	target := h.restore(from)
	fi, err := os.Stat(target)
	if target == "" || err != nil || fi.Size() < 2 {
		return
	}
	// A file cannot be written to behind the limit; the record is small.
	limit := strconv.FormatInt(max(16, h.crng.Int64N(fi.Size())/512), 10)
	args := []string{"apply", h.rawTarget(), d.path, target}
	r := tool.Cmd{Dir: h.dir}.Run("sh", append([]string{"-c", `ulimit -f "$1"; shift; exec "$@"`, "sh", limit, h.cfg.cbt}, args...)...)
	if r.Exit == done {
		h.sameBytes(target, d.truth, "applied under a limit")
		return
	}
	h.counts["applies interrupted"]++
	what := "nothing"
	dir := h.path(filepath.Dir(d.path))
	switch h.crng.IntN(4) {
	case 0:
	case 1: // without the deltas that the base is made of
		what = "the chain gone"
		if err := os.Rename(dir, dir+".gone"); err != nil {
			h.problem("%v", err)
			return
		}
		defer os.Rename(dir+".gone", dir)
		alone := h.path(filepath.Join("out", fmt.Sprintf("alone%d", h.outs)))
		if err := os.Mkdir(alone, 0o755); err != nil {
			h.problem("%v", err)
			return
		}
		args[2] = filepath.Join(alone, "d.cbt")
		if err := copyFile(args[2], filepath.Join(dir+".gone", filepath.Base(d.path))); err != nil {
			h.problem("%v", err)
			return
		}
	default:
		if what, err = tool.Alter(h.crng, target); err != nil {
			h.problem("%v", err)
			return
		}
	}
	h.rightOrRefused("an interrupted apply, then "+what, d, target, args)
	if what == "nothing" {
		h.sameBytes(target, d.truth, "completed")
	}
}

// touched writes to a target between two applies.
func (h *history) touched(target string, d *delta) {
	fi, err := os.Stat(target)
	if err != nil || fi.Size() < 2 {
		return
	}
	what, err := tool.Alter(h.crng, target)
	if err != nil {
		h.problem("%v", err)
		return
	}
	h.rightOrRefused("a target, then "+what, d, target, []string{"apply", h.rawTarget(), d.path, target})
}

func (h *history) rightOrRefused(when string, d *delta, target string, args []string) {
	h.comparisons++
	h.counts["targets altered"]++
	before := hashFile(target)
	r := tool.Cmd{Dir: h.dir}.Run(h.cfg.cbt, args...)
	h.note(r, "cbt", args)
	switch {
	case r.Exit == done:
		h.sameBytes(target, d.truth, when)
	case r.Exit < 1 || r.Exit > 5 || len(r.Stderr) == 0:
		h.problem("%s: exit %d: %s", when, r.Exit, r.Message())
	case hashFile(target) != before:
		h.problem("%s: refused (exit %d), and the target was written to", when, r.Exit)
	default:
		h.counts["altered targets refused"]++
	}
}
