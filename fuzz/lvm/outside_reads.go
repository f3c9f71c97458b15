package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// outsideMap compares what map says of a volume with its bytes.
func (r *round) outsideMap(v *volume) {
	res := r.cbt(r.withPVs("map", "--json", v.String())...)
	if res.Failed() {
		r.problem("map of %s: exit %d: %s", v, res.Exit, res.Message())
		return
	}
	r.comparisons++
	r.counts["maps"]++
	var es []extent
	if err := json.Unmarshal(res.Stdout, &es); err != nil {
		r.problem("map of %s: %v", v, err)
		return
	}
	b, err := os.ReadFile(r.truth(v))
	if err != nil {
		r.fault("%v", err)
		return
	}
	if err := covered(es, b); err != nil {
		r.problem("map of %s: %v", v, err)
	}
}

// covered finds a gap between extents, or a zero extent that is not.
func covered(es []extent, content []byte) error {
	at := int64(0)
	for _, e := range es {
		if e.Start != at || e.Length <= 0 || e.Length > int64(len(content))-at {
			return fmt.Errorf("extent %+v after %d, of %d bytes", e, at, len(content))
		}
		at += e.Length
		if e.Zero && len(bytes.Trim(content[e.Start:at], "\x00")) > 0 {
			return fmt.Errorf("extent %+v is zero, and there are other bytes", e)
		}
	}
	if at != int64(len(content)) {
		return fmt.Errorf("extents up to %d of %d bytes", at, len(content))
	}
	return nil
}

// outsideCheck has cbt check the pool's metadata, which the kernel wrote.
func (r *round) outsideCheck() {
	res := r.cbt(r.withPVs("check", "lvm:vg/pool")...)
	r.comparisons++
	r.counts["pools checked"]++
	if res.Failed() {
		r.problem("check of the pool: exit %d: %s %s", res.Exit, oneLine(res.Stdout), res.Message())
	}
}

// readIDs asks LVM which devices the thin volumes are.
func (r *round) readIDs() {
	r.ids = map[string]string{}
	for _, line := range strings.Split(r.quiet("lvs --noheadings -o name,thin_id vg"), "\n") {
		if f := strings.Fields(line); len(f) == 2 {
			r.ids[f[0]] = f[1]
		}
	}
}

// bareThin reads a volume out of the pool's metadata and data alone. They know
// neither its size nor what lies below an external origin.
func (r *round) bareThin() {
	v := r.some(func(v *volume) bool { return v.kind == thin && v.family == 0 })
	id := r.ids[v.name]
	meta, data := r.path("tmeta"), r.path("tdata")
	for name, lv := range map[string]string{meta: "pool_tmeta", data: "pool_tdata"} {
		defer os.Remove(name)
		res := r.cbt(r.withPVs("cat", "lvm:vg/"+lv)...)
		if res.Failed() {
			r.problem("cat of %s: exit %d: %s", lv, res.Exit, res.Message())
			return
		}
		if err := os.WriteFile(name, res.Stdout, 0o600); err != nil {
			r.fault("%v", err)
			return
		}
	}
	what := fmt.Sprintf("thin:%s, which is %s", id, v)
	res := r.cbt("cat", "thin:"+id, "--thin-metadata", meta, "--thin-data", data)
	if res.Failed() {
		r.problem("cat of %s: exit %d: %s", what, res.Exit, res.Message())
		return
	}
	r.counts["bare thin devices"]++
	r.comparisons++
	want, err := os.ReadFile(r.truth(v))
	if err != nil {
		r.fault("%v", err)
		return
	}
	// Up to its last mapping, which may be past the end of a volume that shrank.
	got := res.Stdout[:min(len(res.Stdout), len(want))]
	if d := firstDifference(got, want[:len(got)]); d >= 0 {
		r.problem("%s: %s", what, difference(got, want[:len(got)]))
	}
	if len(bytes.Trim(want[len(got):], "\x00")) > 0 {
		r.problem("%s: %d bytes, and after them there are some in %d", what, len(got), len(want))
	}
}
