package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"cbt/internal/testvm"
)

// live asks cbt in the machine, while the volumes are in use.
func (r *round) live() {
	if r.chance(3) {
		return
	}
	switch r.rng.IntN(8) {
	case 0:
		r.liveCat()
	case 1:
		r.liveFull()
	case 2:
		r.liveExtents()
	default:
		r.liveDelta()
	}
	r.nothingHeld()
}

// guest runs cbt in the machine.
func (r *round) guest(args ...string) testvm.Result {
	res, err := r.vm.Exec(testvm.Command{Args: append([]string{"/bin/cbt"}, args...)})
	if err != nil {
		r.fault("%v", err)
		return testvm.Result{Exit: -1}
	}
	r.logf("  live: cbt %s: exit %d %s", strings.Join(args, " "), res.Exit, oneLine(res.Stderr))
	r.counts["live runs"]++
	return res
}

// pair is two related volumes, the first frozen if there is such a pair.
func (r *round) pair() (old, to *volume) {
	from := func(v *volume) bool { return v.frozen() && !v.lost }
	if r.chance(8) {
		from = func(v *volume) bool { return v.kind != external && !v.lost }
	}
	for range 20 {
		old = r.some(from)
		if old == nil {
			return nil, nil
		}
		to = r.some(func(v *volume) bool { return v != old && v.family == old.family && v.kind == old.kind && !v.lost })
		// Mostly two snapshots: an active volume has no point.
		if to != nil && (to.frozen() || r.chance(4)) {
			return old, to
		}
	}
	return nil, nil
}

// manner is how a delta is made, which must not show in what it gives.
func (r *round) manner() []string {
	switch r.rng.IntN(8) {
	case 0, 1:
		return []string{"--refine=off"}
	case 2, 3:
		return []string{"--spot-check=off"} // it would find what is compared here
	case 4:
		return []string{"--method=content"}
	}
	return nil
}

// vouched is --frozen, sometimes, for what is active and writable: nobody
// writes to it.
func (r *round) vouched(volumes ...*volume) []string {
	for _, v := range volumes {
		if !v.frozen() && r.chance(2) {
			r.counts["--frozen"]++
			return []string{"--frozen"}
		}
	}
	return nil
}

// refused counts what need not be possible, and notes as a problem what must
// be: the changes from a snapshot to what stands still.
func (r *round) refused(old, to *volume, vouched bool, what string, exit int, stderr []byte) {
	if old.frozen() && (to.frozen() || vouched) || old == to && vouched {
		r.problem("%s: exit %d: %s", what, exit, oneLine(stderr))
		return
	}
	if exit < 1 || exit > 5 || len(stderr) == 0 {
		r.problem("%s: exit %d without a reason: %s", what, exit, oneLine(stderr))
	}
	r.counts["refused: not frozen"]++
}

func (r *round) liveDelta() {
	old, to := r.pair()
	if old == nil {
		return
	}
	what := fmt.Sprintf("live delta of %s to %s", old, to)
	r.sh("rm -f /tmp/d.cbt")
	vouched := r.vouched(old, to)
	args := append([]string{"diff", old.String(), to.String(), "-o", "/tmp/d.cbt"}, vouched...)
	args = append(args, r.manner()...)
	res := r.guest(args...)
	if res.Exit != 0 {
		r.refused(old, to, vouched != nil, what, res.Exit, res.Stderr)
		if r.exec("[ ! -e /tmp/d.cbt ]").Exit != 0 {
			r.problem("%s: refused, and there is a file", what)
		}
		return
	}
	r.counts["live deltas, "+old.kind]++
	if r.chance(2) {
		r.applyInside(old, to, what)
		return
	}
	var d bytes.Buffer
	if err := r.vm.Get(&d, "/tmp/d.cbt"); err != nil {
		r.fault("%v", err)
		return
	}
	path := r.path(fmt.Sprintf("live%03d.cbt", r.step))
	if err := os.WriteFile(path, d.Bytes(), 0o644); err != nil {
		r.fault("%v", err)
		return
	}
	r.applyOutside(path, old, to, what)
}

// applyInside applies /tmp/d.cbt in the machine.
func (r *round) applyInside(old, to *volume, what string) {
	base := "cbt cat " + old.String()
	if !old.frozen() {
		base = "cat " + old.dev() // cbt need not read what is active and writable
	}
	res := r.exec(base + " >/tmp/t\ncbt apply --assume-base /tmp/d.cbt /tmp/t >&2\ncarry /tmp/t\nrm -f /tmp/t.cbt-state")
	if res.Exit != 0 {
		r.problem("%s, applied inside: %v", what, res)
		return
	}
	var size int64
	_, _ = fmt.Sscan(string(res.Stdout), &size)
	r.same(r.carried(size), to, what+", applied inside")
}

// carried is what lies at the beginning of the scratch disk.
func (r *round) carried(size int64) []byte {
	f, err := os.Open(r.path("scratch"))
	if err != nil {
		r.fault("%v", err)
		return nil
	}
	defer f.Close()
	b := make([]byte, min(max(size, 0), scratchSize))
	if _, err := f.ReadAt(b, 0); err != nil {
		r.fault("%v", err)
	}
	return b
}

func (r *round) liveCat() {
	v := r.some(func(v *volume) bool { return !v.lost })
	res := r.exec("cbt cat " + v.String() + " >/tmp/t\ncarry /tmp/t")
	r.logf("  live: cbt cat %s: exit %d %s", v, res.Exit, oneLine(res.Stderr))
	r.counts["live runs"]++
	if res.Exit != 0 {
		r.refused(v, v, false, "live cat of "+v.String(), res.Exit, res.Stderr)
		return
	}
	r.counts["live contents"]++
	var size int64
	_, _ = fmt.Sscan(string(res.Stdout), &size)
	r.same(r.carried(size), v, "live cat of "+v.String())
}

// liveFull writes a full delta out of the machine through a pipe.
func (r *round) liveFull() {
	v := r.some(func(v *volume) bool { return v.frozen() && !v.lost })
	if v == nil {
		return
	}
	path := r.path(fmt.Sprintf("full%03d/full.cbt", r.step))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.fault("%v", err)
		return
	}
	f, err := os.Create(path)
	if err != nil {
		r.fault("%v", err)
		return
	}
	defer f.Close()
	res, err := r.vm.Exec(testvm.Command{Args: []string{"/bin/cbt", "diff", "--full", v.String(), "-o", "-"}, Stdout: f})
	if err != nil {
		r.fault("%v", err)
		return
	}
	r.logf("  live: cbt diff --full %s -o -: exit %d %s", v, res.Exit, oneLine(res.Stderr))
	if r.counts["live runs"]++; res.Exit != 0 {
		r.refused(v, v, false, "live full delta of "+v.String(), res.Exit, res.Stderr)
		return
	}
	r.counts["live full deltas"]++
	r.fulls[v] = path
	r.restoreOutside(path, v, "live full delta of "+v.String())
}

func (r *round) liveExtents() {
	old, to := r.pair()
	if old == nil {
		return
	}
	what := fmt.Sprintf("live changed extents of %s to %s", old, to)
	vouched := r.vouched(old, to)
	res := r.guest(append([]string{"diff", "--json", old.String(), to.String()}, vouched...)...)
	if res.Exit != 0 {
		r.refused(old, to, vouched != nil, what, res.Exit, res.Stderr)
		return
	}
	r.counts["live changed extents, "+old.kind]++
	r.named(res.Stdout, old, to, what)
}

// nothingHeld asks the kernel whether a metadata snapshot was left.
func (r *round) nothingHeld() {
	if root := r.heldRoot(); root != "-" && !r.broken {
		r.problem("the pool's metadata snapshot at %s was left", root)
		r.try("dmsetup message vg-pool-tpool 0 release_metadata_snap")
	}
}

// heldRoot is the block of the pool's metadata snapshot, "-" if there is none.
func (r *round) heldRoot() string {
	fields := strings.Fields(r.quiet("dmsetup status vg-pool-tpool"))
	if len(fields) < 7 {
		r.fault("status of the pool: %q", fields)
		return ""
	}
	return fields[6]
}
