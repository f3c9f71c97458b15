package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// truth is the file with what the kernel last read of a volume.
func (r *round) truth(v *volume) string { return r.path("truth/" + v.name) }

// readAll reads every active volume as the kernel does.
func (r *round) readAll() {
	var active []*volume
	for _, v := range r.volumes {
		if v.use != inactive && !v.lost {
			active = append(active, v)
		}
	}
	r.read(active)
	// A snapshot that is inactive is what its origin was.
	for _, v := range r.volumes {
		if v.use == inactive && !v.read {
			r.readInactive(v)
		}
	}
}

// readFrozen reads the inactive ones once more.
func (r *round) readFrozen() {
	for _, v := range r.volumes {
		if v.use == inactive {
			r.readInactive(v)
		}
	}
}

func (r *round) readInactive(v *volume) {
	r.quiet("lvchange -q -ay -K vg/" + v.name)
	r.read([]*volume{v})
	r.quiet("lvchange -q -an vg/" + v.name)
}

// read has the kernel copy volumes to the scratch disk, one after another, and
// keeps them. What is frozen must be what it was.
func (r *round) read(volumes []*volume) {
	var script strings.Builder
	at := map[*volume]int64{}
	var next int64
	for _, v := range volumes {
		at[v] = next
		fmt.Fprintf(&script, "out %s %d\n", v.name, next>>20)
		next += (v.size + 1<<20 - 1) &^ (1<<20 - 1)
	}
	if next > scratchSize {
		r.fault("%d bytes of volumes", next)
		return
	}
	sizes := map[string]string{}
	for s := bufio.NewScanner(strings.NewReader(r.quiet(script.String()))); s.Scan(); {
		name, size, _ := strings.Cut(s.Text(), " ")
		sizes[name] = size
	}
	if r.broken {
		return
	}
	scratch, err := os.Open(r.path("scratch"))
	if err != nil {
		r.fault("%v", err)
		return
	}
	defer scratch.Close()
	for _, v := range volumes {
		switch size := sizes[v.name]; {
		case size == "lost" && v.kind == thick && v.of != nil:
			v.lost = true
			r.counts["thick snapshots that ran over"]++
			r.logf("  %s is lost", v.name)
		case size != fmt.Sprint(v.size):
			r.fault("%s has %s bytes, want %d", v.name, size, v.size)
		default:
			r.keep(v, io.NewSectionReader(scratch, at[v], v.size))
		}
	}
}

// keep writes what was read to the volume's file, if it is new.
func (r *round) keep(v *volume, content io.Reader) {
	b, err := io.ReadAll(content)
	if err != nil {
		r.fault("%v", err)
		return
	}
	sum := sumOf(b)
	old := v.sum
	r.logf("  %s %s", v.name, sum[:16])
	if v.read && old == sum {
		return
	}
	v.sum, v.read = sum, true
	if old != "" && old != sum && (v.frozen() || v.kind == external) {
		r.fault("the kernel changed %s from %s to %s", v.name, old[:16], sum[:16])
	}
	if err := os.WriteFile(r.truth(v), b, 0o644); err != nil {
		r.fault("%v", err)
	}
}

func sumOf(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// same compares bytes with what the kernel read of a volume.
func (r *round) same(got []byte, v *volume, what string) {
	r.comparisons++
	if sumOf(got) == v.sum {
		return
	}
	want, err := os.ReadFile(r.truth(v))
	if err != nil {
		r.fault("%v", err)
		return
	}
	r.problem("%s: %s", what, difference(got, want))
}

// difference describes the first one.
func difference(got, want []byte) string {
	n := min(len(got), len(want))
	for i := 0; i < n; i += 512 {
		j := min(i+512, n)
		if bytes.Equal(got[i:j], want[i:j]) {
			continue
		}
		differ := 0
		for k := i; k < n; k += 512 {
			if !bytes.Equal(got[k:min(k+512, n)], want[k:min(k+512, n)]) {
				differ++
			}
		}
		return fmt.Sprintf("%d bytes, want %d; the sector at %d is %x..., want %x...; %d sectors differ", len(got), len(want), i, got[i:min(i+8, j)], want[i:min(i+8, j)], differ)
	}
	return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
}

func qemuImg(args ...string) error {
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img %s: %w: %s", strings.Join(args, " "), err, oneLine(out))
	}
	return nil
}
