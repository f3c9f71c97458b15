package qcow2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cbt/internal/testtool"
)

// histories returns the seed of the first random history and their number. The environment variable
// CBT_HISTORIES sets another number, and CBT_SEED another first seed.
func histories(t *testing.T) (first, n uint64) {
	n = 12
	if testing.Short() {
		n = 3
	}
	for name, v := range map[string]*uint64{"CBT_HISTORIES": &n, "CBT_SEED": &first} {
		if s := os.Getenv(name); s != "" {
			var err error
			if *v, err = strconv.ParseUint(s, 10, 64); err != nil {
				t.Fatal(err)
			}
		}
	}
	return first, n
}

// history is an image that QEMU's tools change at random, with the content of its states when they
// were made.
type history struct {
	t       *testing.T
	rnd     *rand.Rand
	dir     string
	path    string
	size    int64
	cluster int64
	version int
	noSnap  bool // external data file or refcounts of one bit
	noComp  bool // external data file
	nextID  int
	states  map[string][]byte // of snapshots, by name
	active  []byte
	log     []string
}

// pick returns one of its arguments.
func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// newHistory makes an empty image. backing, if not nil, is its backing image.
func newHistory(t *testing.T, rnd *rand.Rand, dir, name string, backing *history, raw string) *history {
	h := &history{t: t, rnd: rnd, dir: dir, path: filepath.Join(dir, name), states: make(map[string][]byte)}
	bits := pick(rnd, 9, 10, 12, 12, 14, 15, 16, 16, 16, 18, 21)
	h.cluster = 1 << bits
	h.version = pick(rnd, 2, 3, 3, 3)
	h.size = h.randomSize()
	opts := []string{fmt.Sprintf("cluster_size=%d", h.cluster), "compat=" + map[int]string{2: "0.10", 3: "1.1"}[h.version]}
	add := func(o string) { opts = append(opts, o) }
	if h.version == 3 {
		refcount := pick(rnd, 1, 2, 4, 8, 16, 16, 16, 32, 64)
		add(fmt.Sprintf("refcount_bits=%d", refcount))
		h.noSnap = refcount == 1
		if bits >= 14 && rnd.IntN(3) > 0 {
			add("extended_l2=on")
		}
		if rnd.IntN(2) == 0 {
			add("compression_type=zstd")
		}
		if rnd.IntN(4) == 0 {
			add("lazy_refcounts=on")
		}
		if rnd.IntN(8) == 0 {
			data := filepath.Join(dir, name+".data")
			add("data_file=" + data)
			if backing == nil && raw == "" && rnd.IntN(2) == 0 {
				add("data_file_raw=on")
			}
			h.noSnap, h.noComp = true, true
		}
	}
	if backing == nil && raw == "" && rnd.IntN(6) == 0 {
		add("preallocation=metadata")
	}
	args := []string{"create", "-f", "qcow2", "-o", strings.Join(opts, ",")}
	switch {
	case backing != nil:
		args = append(args, "-b", filepath.Base(backing.path), "-F", "qcow2")
	case raw != "":
		args = append(args, "-b", raw, "-F", "raw")
	}
	h.tool("qemu-img", append(args, h.path, fmt.Sprint(h.size))...)
	h.refresh()
	return h
}

// randomSize returns a whole number of sectors, from 0 to a few MiB.
func (h *history) randomSize() int64 {
	return int64(h.rnd.IntN(int(pick[int64](h.rnd, 2, 64, 2048, 8192, 12000)))) * 512
}

func (h *history) tool(name string, args ...string) string {
	h.log = append(h.log, name+" "+strings.Join(args, " "))
	return testtool.Run(h.t, name, args...)
}

// try is tool for commands that QEMU may refuse.
func (h *history) try(name string, args ...string) bool {
	h.log = append(h.log, name+" "+strings.Join(args, " "))
	out, err := testtool.Try(h.t, name, args...)
	if err != nil {
		h.log = append(h.log, "  refused: "+strings.TrimSpace(out))
	}
	return err == nil
}

// refresh asks QEMU for the active content.
func (h *history) refresh() {
	out := h.path + ".raw"
	h.tool("qemu-img", "convert", "-O", "raw", h.path, out)
	var err error
	if h.active, err = os.ReadFile(out); err != nil {
		h.t.Fatal(err)
	}
	h.size = int64(len(h.active))
}

// write has qemu-io do n random things to the active state.
func (h *history) write(n int) {
	if h.size == 0 {
		return
	}
	var cmds bytes.Buffer
	for range n {
		off, length := h.randomRange()
		switch h.rnd.IntN(10) {
		case 0, 1, 2:
			fmt.Fprintf(&cmds, "write -P %d %d %d\n", 1+h.rnd.IntN(255), off, length)
		case 3:
			fmt.Fprintf(&cmds, "write -s %s %d %d\n", h.pattern(), off, length)
		case 4, 5:
			h.compressed(&cmds, off, length)
		case 6:
			fmt.Fprintf(&cmds, "write -z %d %d\n", off, length)
		case 7:
			fmt.Fprintf(&cmds, "write -z -u %d %d\n", off, length)
		default:
			fmt.Fprintf(&cmds, "discard %d %d\n", off, length)
		}
	}
	h.log = append(h.log, "qemu-io:", cmds.String())
	cmd := exec.Command(testtool.Need(h.t, "qemu-io"), "-f", "qcow2", "-t", "unsafe", "-d", "unmap", h.path)
	cmd.Stdin = &cmds
	// QEMU refuses to compress over allocated clusters and goes on. convert then shows what became
	// of it all.
	out, err := cmd.CombinedOutput()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		h.t.Fatalf("qemu-io: %v\n%s", err, out)
	}
	h.refresh()
}

// compressed writes whole clusters, as qemu-io demands, or up to the end.
func (h *history) compressed(cmds *bytes.Buffer, off, length int64) {
	if h.noComp {
		return
	}
	off &^= h.cluster - 1
	for end := min(off+length, off+4*h.cluster); off < end; off += h.cluster {
		source := fmt.Sprintf("-P %d", 1+h.rnd.IntN(255))
		if h.rnd.IntN(2) == 0 {
			source = "-s " + h.pattern()
		}
		fmt.Fprintf(cmds, "write -c %s %d %d\n", source, off, min(h.cluster, h.size-off))
	}
}

// randomRange returns a range inside the image, in sectors, often aligned to clusters.
func (h *history) randomRange() (off, n int64) {
	sectors := h.size / 512
	off = h.rnd.Int64N(sectors) * 512
	n = (1 + h.rnd.Int64N(pick[int64](h.rnd, 1, 9, 200, 3000))) * 512
	if h.rnd.IntN(2) == 0 {
		off &^= h.cluster - 1
		n = (n + h.cluster - 1) &^ (h.cluster - 1)
	}
	return off, min(n, h.size-off)
}

// pattern returns the path of a file of 64 KiB that compresses to about half.
func (h *history) pattern() string {
	name := filepath.Join(h.dir, fmt.Sprintf("pattern%d", h.rnd.IntN(3)))
	if _, err := os.Stat(name); err != nil {
		b := make([]byte, 64<<10)
		for i := range b {
			if i&1 == 0 {
				b[i] = byte(h.rnd.Uint32())
			}
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
	return name
}

// step makes one random change to the history.
func (h *history) step() {
	switch h.rnd.IntN(8) {
	case 0, 1, 2:
		h.write(1 + h.rnd.IntN(12))
	case 3, 4, 5:
		h.snapshot()
	case 6:
		size := h.randomSize()
		if h.try("qemu-img", "resize", "--shrink", h.path, fmt.Sprint(size)) {
			h.refresh()
		}
	case 7:
		names := sortedKeys(h.states)
		if len(names) == 0 {
			return
		}
		name := pick(h.rnd, names...)
		if h.rnd.IntN(2) == 0 {
			h.tool("qemu-img", "snapshot", "-d", name, h.path)
			delete(h.states, name)
		} else if h.try("qemu-img", "snapshot", "-a", name, h.path) {
			h.refresh()
		}
	}
}

func (h *history) snapshot() {
	h.write(h.rnd.IntN(6))
	if h.noSnap {
		return
	}
	h.nextID++
	name := fmt.Sprintf("s%d", h.nextID)
	if h.try("qemu-img", "snapshot", "-c", name, h.path) {
		h.states[name] = bytes.Clone(h.active)
	}
}
