package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"cbt/fuzz/tool"
)

// readings asks for states as they lie in their images.
func (h *history) readings() {
	for _, s := range h.states {
		if !s.alive {
			continue
		}
		if h.crng.IntN(2) == 0 {
			h.cat(s)
		}
		if h.crng.IntN(4) == 0 {
			h.parts(s)
		}
		if s.snap != "" || s.f.opts.raw {
			continue
		}
		h.mapped(s)
		h.info(s.f)
		h.structure(s.f)
	}
	// Neighbours in time, across files too.
	var last *state
	for _, s := range h.states {
		if !s.alive {
			continue
		}
		if last != nil && h.crng.IntN(2) == 0 {
			h.changes(last, s)
			if h.crng.IntN(2) == 0 {
				h.changes(s, last)
			}
		}
		last = s
	}
}

func (h *history) cat(s *state) {
	target := h.out(".raw")
	w, err := os.Create(target)
	if err != nil {
		h.problem("%v", err)
		return
	}
	defer w.Close()
	ref, flags := h.ref(s, "")
	if _, ok := h.cbtPipe(done, nil, w, append([]string{"cat", ref}, withoutFrozen(flags)...)...); ok {
		h.sameBytes(target, s.truth, "cat "+s.String())
	}
}

// withoutFrozen: only what makes points asks whether somebody writes.
func withoutFrozen(flags []string) []string {
	var of []string
	for _, f := range flags {
		if f != "--frozen" {
			of = append(of, f)
		}
	}
	return of
}

// extent is one line of map --json and of diff --json.
type extent struct {
	Start, Length int64
	Depth         int
	Present       bool
	Zero, Data    bool
	Offset        *int64
}

func (e extent) String() string {
	at := "none"
	if e.Offset != nil {
		at = fmt.Sprint(*e.Offset)
	}
	return fmt.Sprintf("[%d+%d depth %d present %v zero %v data %v offset %s]", e.Start, e.Length, e.Depth, e.Present, e.Zero, e.Data, at)
}

// mapped compares `cbt map` with `qemu-img map`.
func (h *history) mapped(s *state) {
	r, ok := h.cbt(done, "map", "--json", s.f.name)
	if !ok {
		return
	}
	q := tool.Cmd{Dir: h.dir}.Run("qemu-img", "map", "-f", "qcow2", "--output=json", s.f.name)
	var got, want []extent
	if err := errors.Join(json.Unmarshal(r.Stdout, &got), json.Unmarshal(q.Stdout, &want)); err != nil {
		h.problem("map of %v: %v", s, err)
		return
	}
	h.comparisons++
	got, want = join(got), join(want)
	for i := range max(len(got), len(want)) {
		a, b := "nothing", "nothing"
		if i < len(got) {
			a = got[i].String()
		}
		if i < len(want) {
			b = want[i].String()
		}
		if a != b {
			h.problem("map of %v: extent %d is %s, qemu-img says %s", s, i, a, b)
			return
		}
	}
}

// join joins neighbours that say the same: how finely a map is cut is not
// what it says. Nor is what the host's file system holds of a data cluster:
// qemu-img calls its holes zero.
func join(es []extent) []extent {
	var of []extent
	for _, e := range es {
		if e.Data {
			e.Zero = false
		}
		if n := len(of); n > 0 {
			p := &of[n-1]
			sameOffset := p.Offset == nil && e.Offset == nil ||
				p.Offset != nil && e.Offset != nil && *p.Offset+p.Length == *e.Offset
			if p.Start+p.Length == e.Start && p.Depth == e.Depth && p.Present == e.Present &&
				p.Zero == e.Zero && p.Data == e.Data && sameOffset {
				p.Length += e.Length
				continue
			}
		}
		of = append(of, e)
	}
	return of
}

// info compares what both tools say of an image.
func (h *history) info(f *file) {
	type facts struct {
		Format      string
		VirtualSize int64  `json:"virtual-size"`
		ClusterSize int64  `json:"cluster-size"`
		Backing     string `json:"backing-filename"`
		Snapshots   []struct{ ID, Name string }
	}
	r, ok := h.cbt(done, "info", "--json", f.name)
	if !ok {
		return
	}
	q := tool.Cmd{Dir: h.dir}.Run("qemu-img", "info", "-f", "qcow2", "--output=json", f.name)
	var got, want facts
	if err := errors.Join(json.Unmarshal(r.Stdout, &got), json.Unmarshal(q.Stdout, &want)); err != nil {
		h.problem("info of %s: %v", f.name, err)
		return
	}
	h.comparisons++
	if a, b := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); a != b {
		h.problem("info of %s: %s, qemu-img says %s", f.name, a, b)
	}
}

// structure demands that cbt check agrees with qemu-img check.
func (h *history) structure(f *file) {
	q := tool.Cmd{Dir: h.dir}.Run("qemu-img", "check", "-q", "-f", "qcow2", f.name)
	want := done
	if q.Failed() {
		want = findings
	}
	h.comparisons++
	h.cbt(want, "check", f.name)
}

// changes demands that what `cbt diff` prints names every byte that differs,
// and calls nothing zero that is not.
func (h *history) changes(old, new *state) {
	ref, flags := h.ref(old, "old")
	newRef, newFlags := h.ref(new, "new")
	r, ok := h.cbt(done, append([]string{"diff", "--json", ref, newRef}, uniq(append(flags, newFlags...))...)...)
	if !ok {
		return
	}
	var es []extent
	if err := json.Unmarshal(r.Stdout, &es); err != nil {
		h.problem("diff of %v and %v: %v", old, new, err)
		return
	}
	h.comparisons++
	if err := named(es, old.truth, new.truth); err != nil {
		h.problem("diff of %v and %v: %v", old, new, err)
	}
}

func named(es []extent, oldPath, newPath string) error {
	old, err := os.ReadFile(oldPath)
	if err != nil {
		return err
	}
	new, err := os.ReadFile(newPath)
	if err != nil {
		return err
	}
	size := int64(len(new))
	oldSize := int64(len(old))
	if oldSize > size {
		old = old[:size]
	}
	at := int64(0)
	for _, e := range append(es, extent{Start: size}) {
		if e.Start < at || e.Length < 0 || e.Start+e.Length > size {
			return fmt.Errorf("%v after %d, of %d bytes", e, at, size)
		}
		// Nothing but growth may be unnamed in what was not there.
		if e.Start > oldSize && e.Start > at {
			return fmt.Errorf("grown from %d, and bytes %d to %d are not named", oldSize, max(at, oldSize), e.Start)
		}
		for i := at; i < e.Start; i++ {
			if old[i] != new[i] {
				return fmt.Errorf("byte %d differs and is not named", i)
			}
		}
		if e.Zero {
			for i := e.Start; i < e.Start+e.Length; i++ {
				if new[i] != 0 {
					return fmt.Errorf("byte %d is %#x in %v", i, new[i], e)
				}
			}
		}
		at = e.Start + e.Length
	}
	return nil
}
