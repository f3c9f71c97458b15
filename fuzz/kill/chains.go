package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"cbt/cbt"
	"cbt/fuzz/tool"
	"cbt/sparse"
)

// chains is a directory with branches: two machines' disks, RAM and state, of
// which some points fall away.
//
//	full - a1 - a2 - a3 - a4
//	        \
//	         b2 - b3 - b4
//	          \
//	           c3 - c4 (a tip)
type chains struct {
	dir    string
	states map[string]map[string][]byte // of each file, the content of its streams
	sums   map[string]map[string]string
}

func (s *scene) newChains() (*chains, error) {
	if s.chains != nil {
		return s.chains, nil
	}
	c := &chains{filepath.Join(s.base, "branches"), map[string]map[string][]byte{}, map[string]map[string]string{}}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return nil, err
	}
	for i, f := range []struct{ name, parent string }{
		{"full", ""}, {"a1", "full"}, {"a2", "a1"}, {"b2", "a1"}, {"a3", "a2"}, {"b3", "b2"}, {"c3", "b2"}, {"a4", "a3"}, {"b4", "b3"}, {"c4", "c3"},
	} {
		if err := s.addDelta(c, i, f.name, f.parent); err != nil {
			return nil, err
		}
	}
	clear(c.states)
	s.chains = c
	return c, nil
}

// addDelta writes the delta from parent's state to one a little different.
func (s *scene) addDelta(c *chains, day int, name, parent string) error {
	at := time.Date(2026, 11, 1+day, 5, 0, 0, 0, time.UTC)
	h := cbt.Header{Version: cbt.Version, Consistency: cbt.Full, Instant: &at}
	state, sums := map[string][]byte{}, map[string]string{}
	var sources []cbt.Source
	rng := rand.New(rand.NewPCG(s.cfg.seed, uint64(day)))
	for _, stream := range []string{"disk/0", "disk/data", "ram/pc.ram", "vmstate"} {
		if stream == "disk/data" && day == 0 {
			continue // comes later
		}
		size := s.cfg.mib << 20 / map[string]int{"disk/0": 6, "disk/data": 24, "ram/pc.ram": 12, "vmstate": 500}[stream]
		old, had := c.states[parent][stream]
		now := make([]byte, size+day%3*12345-day*1000) // grows and shrinks
		copy(now, old)
		for range 12 + 4*day {
			off := rng.IntN(len(now))
			part := now[off:min(len(now), off+1+rng.IntN(size/20))]
			switch rng.IntN(3) {
			case 0:
				clear(part)
			case 1:
				copy(part, bytes.Repeat([]byte(name), len(part)/2))
			default:
				for i := range part {
					part[i] = byte(rng.Uint32())
				}
			}
		}
		if name != "a4" || stream != "disk/data" { // goes again
			st := cbt.Stream{Name: stream, Size: int64(len(now)), To: stream + ":" + name}
			src := cbt.Source{New: memory(now)}
			if st.Full = !had || stream == "vmstate"; !st.Full {
				st.From = &cbt.Base{Point: stream + ":" + parent, Size: int64(len(old))}
				src.Old, src.Changed = memory(old), memory(now).Extents(0, st.Size)
			}
			if name == "c4" {
				st.To = ""
			}
			h.Streams = append(h.Streams, st)
			sources = append(sources, src)
			state[stream], sums[stream] = now, fmt.Sprintf("%x", sha256.Sum256(now))
		}
	}
	c.states[name], c.sums[name+".cbt"] = state, sums
	f, err := os.OpenFile(filepath.Join(c.dir, name+".cbt"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := cbt.Write(context.Background(), f, h, sources, cbt.Options{}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return f.Close()
}

// memory is an image in memory.
type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }

func (m memory) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, m.Size())
	return copy(p, m[min(off, m.Size()):]), eof
}

func (m memory) Extents(off, n int64) sparse.Seq {
	return sparse.Of(sparse.Extent{Off: off, Len: n, Kind: sparse.Data})
}

// chainJobs are those on directories of deltas.
func (s *scene) chainJobs(c *chains) []job {
	out := s.in("out.cbt")
	in := func(name string) string { return filepath.Join(c.dir, name+".cbt") }
	linked := func() error { return s.linkChains(c) }
	jobs := []job{
		{name: "merge", clean: true, args: []string{"merge", in("a3"), in("a2"), in("a4"), "-o", out}, prepare: s.fresh},
		{name: "merge from a full", clean: true, args: []string{"merge", in("full"), in("a1"), in("b2"), in("c3"), "-o", out}, prepare: s.fresh},
		{name: "prune", args: []string{"prune", s.work, "--keep-last", "3", "--rebase-every", "0"}, prepare: linked},
		{name: "prune between", args: []string{"prune", s.work, "--keep-last", "3", "--keep-yearly", "2", "--rebase-every", "1h"}, prepare: linked},
	}
	for i := range jobs {
		j := jobs[i]
		if err := j.prepare(); err != nil {
			s.fault("%s: %v", j.name, err)
			continue
		}
		if r := s.cbt(j.args...); r.Failed() {
			s.fault("%s undisturbed: exit %d: %s", j.name, r.Exit, r.Message())
			continue
		}
		want := s.content()
		if strings.HasPrefix(j.name, "merge") {
			jobs[i].inspect = func(when string) { s.inspectMerge(j, when, out, want) }
			continue
		}
		jobs[i].inspect = func(when string) { s.inspectPrune(c, j, when, want) }
	}
	return jobs
}

// linkChains makes the working directory one of the deltas. prune replaces and
// deletes names; if it wrote into a file, the next round would show it.
func (s *scene) linkChains(c *chains) error {
	if err := s.fresh(); err != nil {
		return err
	}
	for name := range c.sums {
		if err := os.Link(filepath.Join(c.dir, name), s.in(name)); err != nil {
			return err
		}
	}
	return nil
}

// content are the names and hashes of all that is in the working directory.
func (s *scene) content() map[string]string {
	all := map[string]string{}
	for _, name := range s.names() {
		sum, err := hashFile(s.in(name))
		if err != nil {
			s.fault("%v", err)
		}
		all[name] = sum
	}
	return all
}

func (s *scene) inspectMerge(j job, when, out string, want map[string]string) {
	s.noOther(j, when, out)
	if !exists(out) {
		if r := s.cbt(j.args...); r.Failed() {
			s.fault("%s %s: again: exit %d: %s", j.name, when, r.Exit, r.Message())
			return
		}
	}
	if got := s.content(); !maps.Equal(got, want) {
		s.fault("%s %s: %v, not %v", j.name, when, got, want)
	}
}

// ofPrune are the names that a killed prune may leave.
var ofPrune = regexp.MustCompile(`^([a-z0-9]+\.cbt|\.[a-z0-9]+\.cbt\.part|\.cbt-prune|\.\.cbt-prune\.part)$`)

// inspectPrune: whenever prune ended, the directory is whole, every kept point
// is what it was, and the same command leads to what it would have led to.
func (s *scene) inspectPrune(c *chains, j job, when string, want map[string]string) {
	for _, name := range s.names() {
		if !ofPrune.MatchString(name) {
			s.fault("%s %s: left %s", j.name, when, name)
		}
		if fi, err := os.Stat(s.in(name)); err != nil || fi.Mode().Perm() != 0o600 {
			s.fault("%s %s: %s: %v", j.name, when, name, err)
		}
	}
	if r := s.cbt("verify", s.work); r.Failed() {
		s.fault("%s %s: verify: exit %d: %s", j.name, when, r.Exit, r.Message())
	}
	s.keptPoints(c, j, when, want)
	if r := s.cbt(j.args...); r.Failed() {
		s.fault("%s %s: again: exit %d: %s", j.name, when, r.Exit, r.Message())
		return
	}
	if got := s.content(); !maps.Equal(got, want) {
		s.fault("%s %s: run again, and it holds %v, not %v", j.name, when, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}

// keptPoints compares all streams of all deltas that stay.
func (s *scene) keptPoints(c *chains, j job, when string, want map[string]string) {
	for name := range want {
		for stream, sum := range c.sums[name] {
			h := sha256.New()
			r := tool.Cmd{Stdout: h}.Run(s.cfg.cbt, "cat", s.in(name)+"@"+stream)
			if got := fmt.Sprintf("%x", h.Sum(nil)); r.Failed() || got != sum {
				s.fault("%s %s: %s of %s is lost: exit %d: %s", j.name, when, stream, name, r.Exit, r.Message())
			}
		}
	}
}

// chainRounds kills merge and prune at every instant, and lets prune run out of
// space.
func (s *scene) chainRounds(strace bool) error {
	c, err := s.newChains()
	if err != nil {
		return err
	}
	before := map[string]string{}
	for name := range c.sums {
		if before[name], err = hashFile(filepath.Join(c.dir, name)); err != nil {
			return err
		}
	}
	for i, j := range s.chainJobs(c) {
		if j.inspect == nil {
			continue
		}
		s.atRandom(j, s.cfg.kills)
		s.interrupted(j, s.cfg.interrupts)
		if strace && s.cfg.steps > i%2*9 { // every other one in a short round
			s.stepByStep(j, s.cfg.steps)
		}
		if strace && strings.HasPrefix(j.name, "prune") {
			s.pruneOrder(j)
		}
		if strings.HasPrefix(j.name, "prune") {
			s.pruneFullDisk(c, j)
		}
	}
	for name, sum := range before {
		if now, err := hashFile(filepath.Join(c.dir, name)); err != nil || now != sum {
			s.fault("%s was written to (%v)", name, err)
		}
	}
	return s.fresh()
}

// pruneOrder reads from a trace that each delta is synced before it gets its
// name, and the directory before anything is deleted.
func (s *scene) pruneOrder(j job) {
	if err := j.prepare(); err != nil {
		s.fault("%s: %v", j.name, err)
		return
	}
	args := append([]string{"-f", "-qq", "-y", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat", s.cfg.cbt}, j.args...)
	r := tool.Cmd{}.Run("strace", args...)
	if r.Failed() {
		s.fault("%s under strace: exit %d", j.name, r.Exit)
	} else if err := pruneOrdered(string(r.Stderr), s.work); err != nil {
		s.fault("%s: %v in:\n%s", j.name, err, r.Stderr)
	}
}

var unlinkCall = regexp.MustCompile(`unlink[a-z]*\(.*"([^"]*)"`)

func pruneOrdered(trace, dir string) error {
	synced, dirty, deleted := false, false, 0
	for line := range strings.SplitSeq(trace, "\n") {
		if m := syncCall.FindStringSubmatch(line); m != nil {
			if m[1] == dir {
				dirty = false
			} else {
				synced = true
			}
		}
		if m := unlinkCall.FindStringSubmatch(line); m != nil {
			if dirty && strings.HasSuffix(m[1], ".cbt") {
				return fmt.Errorf("%s deleted before what came before it was durable", m[1])
			}
			dirty = true
			deleted++
		} else if m := nameCall.FindStringSubmatch(line); m != nil {
			if !synced {
				return fmt.Errorf("%s named before it was synced", m[1])
			}
			synced, dirty = false, true
		}
	}
	if dirty || deleted == 0 {
		return fmt.Errorf("the directory was not synced last (%d deltas deleted)", deleted)
	}
	return nil
}

// pruneFullDisk lets prune run with little space.
func (s *scene) pruneFullDisk(c *chains, j job) {
	if err := s.fresh(); err != nil || !mountSmall(s.in(""), 4*s.cfg.mib, "") {
		fmt.Println("kill: cannot mount a tmpfs: prune without space not tested")
		return
	}
	defer exec.Command("umount", s.in("")).Run()
	for _, free := range []int{0, 1, s.cfg.mib / 8, s.cfg.mib / 4} {
		for _, name := range s.names() {
			os.Remove(s.in(name))
		}
		for name := range c.sums {
			b, err := os.ReadFile(filepath.Join(c.dir, name))
			if err == nil {
				err = os.WriteFile(s.in(name), b, 0o600)
			}
			if err != nil {
				s.fault("%v", err)
				return
			}
		}
		filler := s.in(".filler")
		if err := fillDisk(filler, free); err != nil {
			s.fault("%v", err)
			return
		}
		r := s.cbt(j.args...)
		os.Remove(filler)
		if r.Exit != 0 && (r.Exit != 1 || !bytes.Contains(r.Stderr, []byte("no space left"))) {
			s.fault("%s with %d MiB free: exit %d: %s", j.name, free, r.Exit, r.Message())
		}
		if r.Exit != 0 {
			s.ended++
		}
		j.inspect(fmt.Sprintf("with %d MiB free", free))
	}
}
