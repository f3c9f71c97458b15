package main

import (
	"fmt"
	"slices"
	"strings"
)

// kinds of volumes.
const (
	thin     = "thin"
	thick    = "thick"
	external = "external origin"
)

// how a volume is in use.
const (
	writable = "rw"
	readOnly = "ro"
	inactive = "off"
)

// volume is a logical volume whose content is known.
type volume struct {
	name, kind string
	family     int     // of those that are related
	of         *volume // the origin of a thick snapshot
	size       int64   // bytes
	use        string
	snapshot   bool
	written    bool   // since it was taken: no base
	lost       bool   // its store of exceptions ran over
	sum        string // SHA-256 of what the kernel reads
	read       bool   // its file is there
}

func (v *volume) String() string { return "lvm:vg/" + v.name }
func (v *volume) dev() string    { return "/dev/vg/" + v.name }

// frozen volumes keep their content.
func (v *volume) frozen() bool { return v.snapshot && !v.written && v.use != writable }

// build makes the group: a pool with a thin volume and one with an external
// origin, and a thick volume.
func (r *round) build() {
	r.extent = pick(r.rng, int64(64), 128, 512, 1024, 4096) << 10
	r.chunk = pick(r.rng, int64(64), 64, 128, 192, 256, 512, 1024) << 10
	var devs []string
	for _, p := range r.pvs {
		devs = append(devs, p.dev)
	}
	r.sh(fmt.Sprintf("pvcreate -q %[1]s\nvgcreate -q -s %[2]dk vg %[1]s", strings.Join(devs, " "), r.extent>>10))
	pool := fmt.Sprintf("-c %dk --poolmetadatasize 4m -Z%s --discards %s", r.chunk>>10, pick(r.rng, "y", "n"), pick(r.rng, "passdown", "nopassdown"))
	switch layout := r.layout(); layout {
	case "raid1":
		r.sh("lvcreate -q -y --type raid1 -m1 --nosync -L 160m -n pool vg\nlvconvert -q -y --type thin-pool " + pool + " vg/pool")
	default:
		r.sh("lvcreate -q -y --type thin-pool " + layout + " -L 160m " + pool + " -n pool vg")
	}
	r.counts[fmt.Sprintf("pools with chunks of %d KiB", r.chunk>>10)]++

	base := r.add(&volume{name: "base", kind: thin, size: r.size(), use: writable})
	r.sh(fmt.Sprintf("lvcreate -q -y -V %dk --thin -n base vg/pool", base.size>>10))

	// What lies below an external origin is written once.
	eo := r.add(&volume{name: "eo", kind: external, size: r.size(), use: readOnly, family: 1})
	r.sh(fmt.Sprintf("lvcreate -q -y -L %dk -n eo vg", eo.size>>10))
	r.sh(r.writes(eo, 6))
	r.sh("lvchange -an vg/eo\nlvchange -q -pr vg/eo\nlvcreate -q -y -s --thinpool vg/pool vg/eo -n ext\nlvchange -ay -K vg/eo")
	r.add(&volume{name: "ext", kind: thin, size: eo.size, use: writable, family: 1})

	org := r.add(&volume{name: "org", kind: thick, size: r.size(), use: writable, family: 2})
	layout := r.layout()
	if layout == "raid1" {
		r.mirrored = true
		layout = "--type raid1 -m1 --nosync"
	}
	r.sh(fmt.Sprintf("lvcreate -q -y %s -L %dk -n org vg", layout, org.size>>10))
	// Striped and mirrored volumes are rounded up.
	_, _ = fmt.Sscan(r.sh("blockdev --getsize64 /dev/vg/org"), &org.size)

	// Every history has two snapshots of each, of different sizes.
	for _, v := range r.volumes {
		if v.kind == external {
			continue
		}
		for i := range 2 {
			r.change(v)
			if i > 0 {
				r.discards(v)
				r.resize(v)
			}
			r.readAll()
			r.snapshot(v, "")
		}
	}
	r.snapshot(base, writable)
	r.branches()
	r.readAll()
}

func (r *round) add(v *volume) *volume {
	r.volumes = append(r.volumes, v)
	r.counts[v.kind+" volumes"]++
	return v
}

// layout is how extents lie on the physical volumes.
func (r *round) layout() string {
	if len(r.pvs) < 2 {
		return ""
	}
	layout := pick(r.rng, "", "-i2 -I64k", "raid1")
	r.counts["layout "+layout]++
	return layout
}

// size is a new volume's: whole extents, seldom whole chunks.
func (r *round) size() int64 {
	n := (4 + r.rng.Int64N(9)) << 20
	n += r.rng.Int64N(1<<20) &^ (r.extent - 1)
	return (n + r.extent - 1) / r.extent * r.extent
}

// some gives a random volume that suits, nil if there is none.
func (r *round) some(suits func(*volume) bool) *volume {
	var all []*volume
	for _, v := range r.volumes {
		if suits(v) {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return pick(r.rng, all...)
}

// oneStep changes something.
func (r *round) oneStep() {
	canWrite := func(v *volume) bool { return v.use == writable && !v.lost }
	switch n := r.rng.IntN(100); {
	case n < 33:
		r.change(r.some(canWrite))
	case n < 48:
		v := r.some(canWrite)
		r.discards(v)
		v.written = true
	case n < 72:
		r.snapshot(r.some(func(v *volume) bool { return !v.lost && (v.kind == thin || v.kind == thick && v.of == nil) }), "")
	case n < 79:
		r.branches()
	case n < 85:
		if v := r.some(func(v *volume) bool { return v.snapshot }); v != nil {
			r.sh("lvremove -q -y vg/" + v.name)
			r.volumes = slices.DeleteFunc(r.volumes, func(o *volume) bool { return o == v })
			delete(r.fulls, v)
			r.counts["snapshots removed"]++
		}
	case n < 90:
		r.resize(r.some(canWrite))
	case n < 93:
		r.fileSystem(r.some(func(v *volume) bool { return canWrite(v) && v.kind == thin }))
	case n < 95:
		r.merge()
	case n < 97:
		r.rename(r.some(func(v *volume) bool { return v.snapshot && !v.lost }))
	case n < 98:
		r.sh(pick(r.rng, "lvextend -q -L +16m vg/pool", "lvextend -q --poolmetadatasize +4m vg/pool"))
		r.counts["pools extended"]++
	default:
		r.sh("vgchange -q -an vg\nvgchange -q -ay vg")
		for _, v := range r.volumes {
			if v.use != inactive && v.kind == thin && v.snapshot || v.kind == external {
				r.sh("lvchange -q -ay -K vg/" + v.name)
			}
		}
		r.counts["groups deactivated and activated"]++
	}
}

// change writes to a volume.
func (r *round) change(v *volume) {
	script := r.writes(v, 1+r.rng.IntN(12))
	if v.of != nil {
		r.try(script) // its store may run over
	} else {
		r.sh(script)
	}
	v.written = true
	r.counts["writes"]++
}

// writes is a script of writes of many sizes, some of the same bytes again.
func (r *round) writes(v *volume, n int) string {
	var b strings.Builder
	for range n {
		unit := pick(r.rng, int64(512), 4096, 4096, r.chunk, 65536)
		count := unit * (1 + r.rng.Int64N(max(1, min(16, (1<<20)/unit))))
		count = min(count, v.size)
		at := r.rng.Int64N(v.size-count+1) / unit * unit
		if r.chance(6) {
			at = (v.size - count) / 512 * 512
		}
		from := r.rng.Int64N(patternSize-count) / 4096 * 4096
		if r.chance(4) {
			from = at % (patternSize - 1<<20) / 4096 * 4096 // what is written here often
		}
		fmt.Fprintf(&b, "w %s %d %d %d\n", v.dev(), from, at, count)
	}
	return b.String()
}

func (r *round) discards(v *volume) {
	var b strings.Builder
	for range 1 + r.rng.IntN(4) {
		unit := pick(r.rng, r.chunk, r.chunk, 4096)
		count := min(unit*(1+r.rng.Int64N(8)), v.size)
		at := r.rng.Int64N(v.size-count+1) / unit * unit
		if r.chance(8) {
			at, count = 0, v.size
		}
		fmt.Fprintf(&b, "blkdiscard -o %d -l %d %s\n", at, count, v.dev())
	}
	if v.kind == thin {
		r.sh(b.String())
	} else {
		r.try(b.String()) // not every layer can
	}
	r.counts["discards"]++
}

// snapshot takes one, in the given use or in any.
func (r *round) snapshot(of *volume, use string) {
	n := 0
	for _, v := range r.volumes {
		if v.snapshot && v.family == of.family {
			n++
		}
	}
	if of.kind == thin && n >= 6 || of.kind == thick && n >= 3 {
		return
	}
	r.taken++
	v := &volume{name: fmt.Sprintf("s%d", r.taken), kind: of.kind, family: of.family, size: of.size, snapshot: true, sum: of.sum}
	if of.kind == thick {
		v.of, v.use = of, pick(r.rng, readOnly, readOnly, writable)
		chunk := int64(4<<10) << r.rng.IntN(8)
		cow := pick(r.rng, of.size*3/2+(4<<20), of.size*3/2+(4<<20), max(1<<20, 16*chunk))
		r.sh(fmt.Sprintf("lvcreate -q -y -s %s -c %dk -L %dk -n %s vg/%s", permission(v.use), chunk>>10, cow>>10, v.name, of.name))
		r.add(v)
		return
	}
	if v.use = use; use == "" {
		v.use = pick(r.rng, readOnly, readOnly, inactive, inactive, writable)
	}
	skip := "-kn"
	if v.use == inactive {
		skip = "-ky"
	}
	r.sh(fmt.Sprintf("lvcreate -q -y -s %s %s -n %s vg/%s", permission(v.use), skip, v.name, of.name))
	r.add(v)
	r.counts["snapshots "+v.use]++
}

func permission(use string) string {
	if use == writable {
		return "-prw"
	}
	return "-pr"
}
