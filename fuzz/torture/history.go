package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"cbt/fuzz/tool"
)

// file is one image file.
type file struct {
	name    string // relative to the history's directory
	opts    options
	size    int64
	num     int
	bitmaps []string // all it ever had
	base    *file    // nil: no backing file
	leaks   bool     // qemu-img check finds lost clusters
}

// over is true when o is f or lies somewhere in its backing chain.
func (f *file) over(o *file) bool {
	for ; f != nil; f = f.base {
		if f == o {
			return true
		}
	}
	return false
}

// state is an instant of a file whose content is known.
type state struct {
	f     *file
	snap  string // name of the internal snapshot, "" for the active state
	truth string // raw file with the content
	size  int64
	seq   int // order of taking
	epoch int // counts changes of content from below, by commits and rebases
	alive bool
}

func (s *state) key() string { return fmt.Sprintf("%d.%d", s.seq, s.epoch) }

func (s *state) String() string {
	if s.snap == "" {
		return s.f.name
	}
	return s.f.name + "@" + s.snap
}

type bitmap struct {
	name  string
	since *state
	epoch int
	inUse bool // its writer was killed
}

// hotspot is a place that histories come back to, so that blocks change,
// change back and differ only in their last byte.
type hotspot struct{ off, n int64 }

// history is one random history and what is known about it.
type history struct {
	cfg  config
	seed uint64
	rng  *rand.Rand // decides the history
	crng *rand.Rand // decides how cbt is asked, so that the history is the same without it
	dir  string
	pat  []string
	log  bytes.Buffer

	stack  []*file // bottom to top; the machine writes to the last
	states []*state
	hot    []hotspot
	maps   []bitmap     // of the top file
	names  map[int]bool // numbers that files have
	truths int

	live []*delta // made while the history went on
	outs int

	evil        bool // the guest writes a qcow2 header at the start of its disk
	spoilt      bool // QEMU wrote an image that it cannot read
	problems    []string
	comparisons int
	counts      tool.Counts
}

// newHistory prepares the history of a seed. Where QEMU spoils an image (7.2
// does, with small clusters and compressed writes), the next attempt is
// another history.
func newHistory(cfg config, seed, attempt uint64, pat []string) (*history, error) {
	h := &history{
		cfg: cfg, seed: seed, pat: pat, counts: tool.Counts{}, names: map[int]bool{},
		rng:  rand.New(rand.NewPCG(seed, 2*attempt)),
		crng: rand.New(rand.NewPCG(seed, 2*attempt+1)),
		dir:  filepath.Join(cfg.dir, fmt.Sprintf("history-%d", seed)),
	}
	h.evil = h.chance(4)
	if err := os.RemoveAll(h.dir); err != nil {
		return nil, err
	}
	for _, d := range []string{"sub", "truth", "deltas", "live", "out"} {
		if err := os.MkdirAll(filepath.Join(h.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// close writes the log of a history that stays and removes one that does not.
func (h *history) close(keep bool) {
	if len(h.problems) == 0 && !keep {
		os.RemoveAll(h.dir)
		return
	}
	for _, p := range h.problems {
		fmt.Fprintf(&h.log, "# PROBLEM %s\n", p)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "log.sh"), h.log.Bytes(), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
	}
}

func (h *history) problem(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	h.problems = append(h.problems, msg)
	fmt.Fprintf(&h.log, "# PROBLEM %s\n", msg)
}

// spoil ends a history whose images QEMU made unreadable, without blame.
func (h *history) spoil() { h.spoilt = true }

func (h *history) note(r tool.Result, name string, args []string) {
	h.log.WriteString(name)
	for _, a := range args {
		h.log.WriteString(" " + quote(a))
	}
	h.log.WriteByte('\n')
	if r.Failed() || len(r.Stderr) != 0 {
		fmt.Fprintf(&h.log, "#   exit %d: %s\n", r.Exit, r.Message())
		if name == "qemu-io" {
			for _, s := range strings.Split(strings.TrimSpace(string(r.Stdout)), "\n") {
				fmt.Fprintf(&h.log, "#   %s\n", s)
			}
		}
	}
}

// qemu runs qemu-img or qemu-io. Many random operations are refused (a
// compressed write over an allocated cluster, a snapshot that a refcount
// cannot count): that is not the subject, what the image then holds is.
func (h *history) qemu(name string, args ...string) bool {
	r := tool.Cmd{Dir: h.dir}.Run(name, args...)
	h.note(r, name, args)
	if r.Exit == -1 {
		h.problem("%s %s: %s", name, strings.Join(args, " "), r.Message())
	}
	if bytes.Contains(r.Stderr, []byte("mage as corrupt")) || bytes.Contains(r.Stderr, []byte("mage is corrupt")) {
		h.spoil()
	}
	if r.Failed() {
		h.counts["refused by qemu"]++
	}
	return !r.Failed()
}

func (h *history) path(rel string) string { return filepath.Join(h.dir, rel) }

func (h *history) top() *file { return h.stack[len(h.stack)-1] }

// chance is true in p of 100 cases.
func (h *history) chance(p int) bool { return h.rng.IntN(100) < p }

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789./_-=@,:") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
