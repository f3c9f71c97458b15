package main

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"cbt/internal/testvm"
)

// releaseCommand is what a run that finds a metadata snapshot has to name.
const releaseCommand = "cbt lvm release-metadata-snap vg/pool"

// slow is the reads and writes a second of the disk with the pool's metadata,
// so that a metadata snapshot is held for a good part of a run.
const slow = 16

// interruptions ends cbt at random instants of a live diff. Only SIGKILL may
// leave the pool's metadata snapshot, and never an unusable pool.
func (r *round) interruptions() {
	if !r.open("k", slow) {
		return
	}
	defer r.close()
	r.buildSlow()
	for r.step = 1; r.step <= r.cfg.kills && !r.broken; r.step++ {
		// The first are one of each.
		switch n := r.rng.IntN(10); {
		case r.step == 1, r.step > 5 && n < 3:
			r.kill()
		case r.step == 2, r.step > 5 && n < 5:
			r.interrupt(syscall.SIGINT)
		case r.step == 3, r.step > 5 && n < 7:
			r.interrupt(syscall.SIGTERM)
		case r.step == 4, r.step > 5 && n < 8:
			r.interrupt(syscall.SIGHUP)
		default:
			r.closedPipe()
		}
		r.usable()
	}
	if r.broken {
		return
	}
	// LVM checks the metadata when it activates the pool.
	r.sh("vgchange -q -an vg\nvgchange -q -ay vg\nlvs vg/pool")
	if err := r.vm.Shutdown(); err != nil {
		r.fault("%v", err)
	}
}

// buildSlow makes two snapshots that differ by 16 MiB and tells how long a
// diff of them takes.
func (r *round) buildSlow() {
	r.sh(`pvcreate -q /dev/vdc
		pvcreate -q --metadatacopies 0 /dev/vdd
		vgcreate -q vg /dev/vdc /dev/vdd
		lvcreate -q -y -L 4m -n meta vg /dev/vdd
		lvcreate -q -y -L 240m -n pool vg /dev/vdc
		lvconvert -q -y --type thin-pool -c 64k --poolmetadata vg/meta vg/pool
		lvcreate -q -y -V 64m --thin -n base vg/pool`)
	fill := func(size, shift int) string {
		var b strings.Builder
		for at := 0; at < size; at += 4 << 20 {
			fmt.Fprintf(&b, "w /dev/vg/base %d %d %d\n", (at+shift)%(4<<20), at, 4<<20)
		}
		return b.String()
	}
	r.sh(fill(64<<20, 1<<20) + "lvcreate -q -y -s -pr -kn -n s1 vg/base\n" + fill(16<<20, 3<<20) + "lvcreate -q -y -s -pr -kn -n s2 vg/base")
	if r.broken {
		return
	}
	res := r.guest(r.diffArgs()...)
	if res.Exit != 0 {
		r.fault("live diff: %v", res)
	}
	r.took = res.Elapsed
	r.sh("rm -f /tmp/d.cbt")
}

func (r *round) diffArgs() []string {
	return []string{"diff", "lvm:vg/s1", "lvm:vg/s2", "-o", "/tmp/d.cbt", "--spot-check=1M"}
}

// whenHeld waits until a pool has a metadata snapshot, or long enough.
const whenHeld = `for i in $(seq 1000); do
		set -- $(dmsetup status vg-pool-tpool)
		[ "$7" = - ] || break
	done`

// end starts a diff and sends it a signal: at some instant of its run, or when
// it holds the metadata snapshot.
func (r *round) end(sig syscall.Signal) (res testvm.Result, ok bool) {
	p, err := r.vm.Start(testvm.Command{Args: append([]string{"/bin/cbt"}, r.diffArgs()...)})
	if err != nil {
		r.fault("%v", err)
		return res, false
	}
	when := "when held"
	if r.step <= 4 || r.chance(3) {
		r.quiet(whenHeld)
	} else {
		after := time.Duration(r.rng.Int64N(int64(r.took)))
		when = after.String()
		time.Sleep(after)
	}
	if err := p.Signal(sig); err != nil {
		r.fault("%v", err)
	}
	if res, err = p.Wait(); err != nil {
		r.fault("%v", err)
	}
	r.logf("%v, %s: exit %d %s", sig, when, res.Exit, oneLine(res.Stderr))
	if res.Exit == 0 {
		r.took = res.Elapsed
	}
	return res, !r.broken
}

// kill is SIGKILL. If it left the metadata snapshot, the next run says so and
// by which command it is released, which then does that.
func (r *round) kill() {
	res, ok := r.end(syscall.SIGKILL)
	if !ok {
		return
	}
	r.comparisons++
	r.counts["SIGKILL"]++
	held := r.heldRoot()
	r.sh("rm -f /tmp/d.cbt")
	if held == "-" {
		if res.Exit != 0 {
			r.counts["killed before or after"]++
		}
		return
	}
	r.counts["SIGKILL with the metadata snapshot held"]++
	r.usable()
	next := r.guest(r.diffArgs()...)
	if next.Exit == 0 || !strings.Contains(string(next.Stderr), releaseCommand) {
		r.problem("the run after a SIGKILL does not name %q: %v", releaseCommand, next)
	}
	if now := r.heldRoot(); now != held {
		r.problem("the run after a SIGKILL made the metadata snapshot %s of %s", now, held)
	}
	if res := r.guest(strings.Fields(releaseCommand)[1:]...); res.Exit != 0 {
		r.problem("%s: %v", releaseCommand, res)
	}
	if now := r.heldRoot(); now != "-" && !r.broken {
		r.problem("after %s the metadata snapshot at %s is left", releaseCommand, now)
		r.sh("dmsetup message vg-pool-tpool 0 release_metadata_snap")
	}
}

// interrupt is a signal that cbt can answer.
func (r *round) interrupt(sig syscall.Signal) {
	res, ok := r.end(sig)
	if !ok {
		return
	}
	r.comparisons++
	r.counts[sig.String()]++
	switch left := r.try("[ ! -e /tmp/d.cbt ]").Exit != 0; {
	case res.Exit == 0 && !left:
		r.problem("%v: exit 0 and no delta", sig)
	case res.Exit == 0:
		r.counts["ended before the signal"]++
	case res.Exit != 128+int(sig):
		r.problem("%v: exit %d: %s", sig, res.Exit, oneLine(res.Stderr))
	case left:
		r.problem("%v: a delta was left", sig)
	}
	if root := r.heldRoot(); root != "-" && !r.broken {
		r.problem("%v left the metadata snapshot at %s", sig, root)
		r.sh("dmsetup message vg-pool-tpool 0 release_metadata_snap")
	}
	r.sh("rm -f /tmp/d.cbt*")
}

// closedPipe has the reader of the delta go away.
func (r *round) closedPipe() {
	n := 1 << r.rng.IntN(24)
	// The shell's own status is head's.
	res := r.exec(fmt.Sprintf("{ cbt diff lvm:vg/s1 lvm:vg/s2 -o - || echo $? >/tmp/exit; } | head -c %d | wc -c\ncat /tmp/exit\nrm -f /tmp/exit", n))
	r.logf("head -c %d: %s %s", n, oneLine(res.Stdout), oneLine(res.Stderr))
	r.comparisons++
	r.counts["closed pipes"]++
	if got := oneLine(res.Stdout); got != fmt.Sprintf("%d 141", n) && got != fmt.Sprintf("%d 1", n) {
		r.problem("head -c %d: %v", n, res)
	}
	if root := r.heldRoot(); root != "-" && !r.broken {
		r.problem("head -c %d left the metadata snapshot at %s", n, root)
		r.sh("dmsetup message vg-pool-tpool 0 release_metadata_snap")
	}
}

// usable takes the pool through what its users do.
func (r *round) usable() {
	status := r.quiet("dmsetup status vg-pool-tpool")
	if !strings.Contains(status, " rw ") || strings.Contains(status, "needs_check") {
		r.problem("the pool is not usable: %s", status)
	}
	if r.step%8 == 0 {
		r.quiet("w /dev/vg/base 0 52428800 65536\nlvcreate -q -y -s -n now vg/base\nlvremove -q -y vg/now")
	}
}
