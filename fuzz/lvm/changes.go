package main

import (
	"fmt"
	"os"
	"slices"
)

func (r *round) resize(v *volume) {
	size := r.size()
	if size == v.size || v.snapshot && v.kind == thick {
		return
	}
	verb := "lvextend -q"
	if size < v.size {
		verb = "lvreduce -q -f -y"
	}
	script := fmt.Sprintf("%s -L %dk vg/%s", verb, size>>10, v.name)
	if v.kind == thick && r.mirrored {
		return // it would be copied anew
	}
	for _, o := range r.volumes {
		if o.of != v {
			continue
		}
		if size < v.size || r.chance(2) {
			return
		}
		script = "lvchange -q -an -y vg/org\n" + script + "\nlvchange -q -ay vg/org"
		r.counts["origins grown below thick snapshots"]++
		break
	}
	r.sh(script)
	_, _ = fmt.Sscan(r.sh("blockdev --getsize64 "+v.dev()), &v.size)
	v.written = true
	r.counts["resizes"]++
}

// branches writes to a volume and to a writable snapshot at one time of the
// pool, at the same place, and takes a snapshot of each: mappings of equal
// times to different blocks.
func (r *round) branches() {
	active := func(v *volume) bool { return v.kind == thin && v.use == writable }
	v := r.some(func(v *volume) bool { return active(v) && v.snapshot })
	if v == nil {
		return
	}
	o := r.some(func(o *volume) bool { return active(o) && o != v && o.family == v.family })
	if o == nil {
		return
	}
	at := r.rng.Int64N(min(v.size, o.size)-r.chunk+1) / r.chunk * r.chunk
	r.sh(fmt.Sprintf("w %s %d %[3]d %[4]d\nw %[5]s %[6]d %[3]d %[4]d\n", v.dev(), 1<<20, at, r.chunk, o.dev(), 3<<20))
	v.written, o.written = true, true
	r.readAll()
	r.snapshot(v, "")
	r.snapshot(o, "")
	r.counts["branches"]++
}

// fileSystem has a file system write and trim.
func (r *round) fileSystem(v *volume) {
	r.sh(fmt.Sprintf(`mkfs.ext4 -q -F %s
		mount %[1]s /mnt
		dd if=/dev/vdb of=/mnt/a bs=64k count=%d skip=%d 2>/dev/null
		dd if=/dev/vdb of=/mnt/b bs=64k count=%[2]d skip=7 2>/dev/null
		sync
		rm /mnt/a
		fstrim /mnt
		umount /mnt`, v.dev(), 4+r.rng.IntN(20), r.rng.IntN(60)))
	v.written = true
	r.counts["file systems"]++
}

// merge turns a volume back into what a snapshot of it is. LVM gives it the
// snapshot's device in the pool.
func (r *round) merge() {
	s := r.some(func(v *volume) bool { return v.snapshot && v.kind == thin })
	if s == nil {
		return
	}
	// LVM knows what it is a snapshot of.
	origin := oneLine([]byte(r.sh("lvs --noheadings -o origin vg/" + s.name)))
	i := slices.IndexFunc(r.volumes, func(v *volume) bool { return v.name == origin })
	if i < 0 || r.volumes[i].kind == external || r.volumes[i].use != writable {
		return
	}
	to := r.volumes[i]
	r.sh(fmt.Sprintf("lvchange -q -an vg/%s\nlvchange -q -an vg/%s\nlvconvert -q -y --merge vg/%[2]s\nlvchange -q -ay -K vg/%[1]s", to.name, s.name))
	r.volumes = slices.DeleteFunc(r.volumes, func(v *volume) bool { return v == s })
	delete(r.fulls, s)
	_, _ = fmt.Sscan(r.sh("blockdev --getsize64 "+to.dev()), &to.size)
	to.written = true
	r.counts["merges"]++
}

// rename gives a snapshot another name, sometimes one that another had.
func (r *round) rename(v *volume) {
	if v == nil {
		return
	}
	name := fmt.Sprintf("s%d", 1+r.rng.IntN(max(1, r.taken)))
	if slices.ContainsFunc(r.volumes, func(o *volume) bool { return o.name == name }) {
		r.taken++
		name = fmt.Sprintf("s%d", r.taken)
	}
	r.sh(fmt.Sprintf("lvrename -q vg %s %s", v.name, name))
	if r.broken {
		return
	}
	if err := os.Rename(r.truth(v), r.path("truth/"+name)); err != nil {
		r.fault("%v", err)
	}
	v.name = name
	r.counts["renames"]++
}
