package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"cbt/fuzz/tool"
)

// off ends the machine: in half of the histories properly, in the others like
// a power failure after a sync of every volume.
func (r *round) off() {
	if r.chance(2) {
		r.counts["ended by shutdown"]++
		if err := r.vm.Shutdown(); err != nil {
			r.fault("%v", err)
		}
		return
	}
	r.counts["ended by power failure"]++
	for _, v := range r.volumes {
		if v.use == writable && !v.lost {
			// A flush makes a pool write its metadata.
			r.quiet("dd if=/dev/null of=" + v.dev() + " count=0 conv=notrunc,fsync 2>/dev/null")
		}
	}
	for _, p := range r.pvs { // or a disk that no such volume is on would lose what QEMU has not written yet
		r.quiet("dd if=/dev/null of=" + p.dev + " count=0 conv=notrunc,fsync 2>/dev/null")
	}
	r.vm.Kill()
}

// cbt runs it here.
func (r *round) cbt(args ...string) tool.Result {
	res := tool.Cmd{}.Run(r.cfg.cbt, args...)
	r.logf("  cbt %s: exit %d %s", strings.Join(args, " "), res.Exit, res.Message())
	if res.Exit < 0 || res.Exit > 5 {
		r.problem("cbt %s: exit %d: %s", strings.Join(args, " "), res.Exit, res.Message())
	}
	return res
}

// withPVs adds the disks to a command line.
func (r *round) withPVs(args ...string) []string {
	for _, p := range r.pvs {
		args = append(args, "--pv", p.path)
	}
	return args
}

// outside asks cbt for the same on the disks, with the machine off.
func (r *round) outside() {
	before := r.disks()
	if res := r.cbt(r.withPVs("info", "--json")...); res.Failed() {
		r.problem("info: exit %d: %s", res.Exit, res.Message())
	} else {
		for _, v := range r.volumes {
			if !strings.Contains(string(res.Stdout), `"`+v.name+`"`) {
				r.problem("info does not name %s", v)
			}
		}
	}
	for _, v := range r.volumes {
		r.outsideCat(v)
		if !v.lost {
			r.outsideMap(v)
		}
	}
	r.outsideCheck()
	r.bareThin()
	for _, old := range r.volumes {
		for _, to := range r.volumes {
			if old != to && old.family == to.family && old.kind == to.kind && !old.lost && !to.lost {
				r.outsidePair(old, to)
			}
		}
	}
	if after := r.disks(); after != before {
		r.problem("the disks changed: %s, then %s", before, after)
	}
}

// disks is what would change if somebody wrote to them.
func (r *round) disks() string {
	var b strings.Builder
	for _, p := range r.pvs {
		st, err := os.Stat(p.path)
		if err != nil {
			r.fault("%v", err)
			return ""
		}
		fmt.Fprintf(&b, "%s %d %v ", filepath.Base(p.path), st.Size(), st.ModTime())
	}
	return b.String()
}

func (r *round) outsideCat(v *volume) {
	res := r.cbt(r.withPVs("cat", v.String())...)
	switch {
	case v.lost && !res.Failed():
		r.problem("cat of %s: its store ran over, and there is content", v)
	case v.lost:
		r.counts["refused: ran over"]++
	case res.Failed():
		r.problem("cat of %s: exit %d: %s", v, res.Exit, res.Message())
	default:
		r.counts["contents"]++
		r.same(res.Stdout, v, "cat of "+v.String())
	}
}

func (r *round) outsidePair(old, to *volume) {
	what := fmt.Sprintf("changed extents of %s to %s", old, to)
	vouched := r.vouched(old, to)
	res := r.cbt(append(r.withPVs("diff", "--json", old.String(), to.String()), vouched...)...)
	if res.Failed() {
		r.refused(old, to, vouched != nil, what, res.Exit, res.Stderr)
	} else {
		r.counts["changed extents, "+old.kind]++
		r.named(res.Stdout, old, to, what)
	}
	what = fmt.Sprintf("delta of %s to %s", old, to)
	path := r.path(fmt.Sprintf("%s-%s.cbt", old.name, to.name))
	args := r.withPVs("diff", old.String(), to.String(), "-o", path)
	full := r.fulls[old]
	if full != "" {
		path = filepath.Join(filepath.Dir(full), "to-"+to.name+".cbt")
		args[4] = path
	}
	args = append(append(args, vouched...), r.manner()...)
	if res := r.cbt(args...); res.Failed() {
		r.refused(old, to, vouched != nil, what, res.Exit, res.Stderr)
		return
	}
	r.counts["deltas, "+old.kind]++
	r.applyOutside(path, old, to, what)
	if full != "" {
		// A full delta that was made live is the base of one that was not.
		r.restoreOutside(path, to, what+", after a full delta made live")
		r.counts["chains of live and not"]++
	}
	os.Remove(path)
}

func (r *round) applyOutside(delta string, old, to *volume, what string) {
	target := r.path("target.raw")
	defer os.Remove(target)
	defer os.Remove(target + ".cbt-state")
	b, err := os.ReadFile(r.truth(old))
	if err == nil {
		err = os.WriteFile(target, b, 0o600)
	}
	if err != nil {
		r.fault("%v", err)
		return
	}
	if res := r.cbt("apply", "--assume-base", delta, target); res.Failed() {
		r.problem("%s: apply: exit %d: %s", what, res.Exit, res.Message())
		return
	}
	r.sameFile(target, to, what)
}

func (r *round) restoreOutside(delta string, to *volume, what string) {
	target := r.path("restored.raw")
	defer os.Remove(target)
	defer os.Remove(target + ".cbt-state")
	if res := r.cbt("restore", delta, target); res.Failed() {
		r.problem("%s: restore: exit %d: %s", what, res.Exit, res.Message())
		return
	}
	r.sameFile(target, to, what)
}

func (r *round) sameFile(path string, v *volume, what string) {
	b, err := os.ReadFile(path)
	if err != nil {
		r.fault("%v", err)
		return
	}
	r.same(b, v, what)
}

// an extent is what cbt diff --json prints.
type extent struct {
	Start  int64 `json:"start"`
	Length int64 `json:"length"`
	Data   bool  `json:"data"`
	Zero   bool  `json:"zero"`
}

// named checks that what cbt does not name is equal in both, and that what it calls zero is.
func (r *round) named(out []byte, old, to *volume, what string) {
	r.comparisons++
	var es []extent
	a, err := os.ReadFile(r.truth(old))
	if err != nil {
		r.fault("%v", err)
		return
	}
	b, err := os.ReadFile(r.truth(to))
	if err != nil {
		r.fault("%v", err)
		return
	}
	if err := json.Unmarshal(out, &es); err != nil {
		r.problem("%s: %v in %.200q", what, err, out)
		return
	}
	if err := unnamed(es, a, b); err != nil {
		r.problem("%s: %v", what, err)
	}
}

// unnamed finds a byte that changed outside of all extents.
func unnamed(es []extent, old, to []byte) error {
	at := int64(0)
	size := int64(len(to))
	equal := func(from, end int64) error {
		if from < end && end > int64(len(old)) {
			return fmt.Errorf("bytes %d to %d are not named, and the volume has grown from %d to %d", from, end, len(old), size)
		}
		if from < end {
			if d := firstDifference(old[from:end], to[from:end]); d >= 0 {
				return fmt.Errorf("byte %d differs and is not named", from+d)
			}
		}
		return nil
	}
	for _, e := range es {
		if e.Start < at || e.Length <= 0 || e.Start > size-e.Length {
			return fmt.Errorf("extent %+v after %d, of %d bytes", e, at, size)
		}
		if err := equal(at, e.Start); err != nil {
			return err
		}
		at = e.Start + e.Length
		if e.Zero {
			for i := e.Start; i < at; i++ {
				if to[i] != 0 {
					return fmt.Errorf("extent %+v is zero, and byte %d is %#x", e, i, to[i])
				}
			}
		}
	}
	return equal(at, size)
}

func firstDifference(a, b []byte) int64 {
	for i := range a {
		if a[i] != b[i] {
			return int64(i)
		}
	}
	return -1
}
