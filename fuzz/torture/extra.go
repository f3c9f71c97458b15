package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// severalDisks puts changes of two images into one delta, and takes one disk
// or both out of it. The second disk is a copy of the first one's image with
// other states in it: two states of one image are refused.
func (h *history) severalDisks(chain []*delta) {
	var full, next []*delta
	for _, d := range chain {
		if d.to == "" {
			continue
		}
		if d.from == "" {
			full = append(full, d)
		} else {
			next = append(next, d)
		}
	}
	if len(full) != 1 || len(next) < 2 || h.crng.IntN(3) > 0 {
		return
	}
	a, b := full[0], next[0]
	for _, d := range []*delta{a, b, next[1]} {
		if d.new.snap == "" || strings.Contains(d.new.snap, "@") {
			return // one --frozen or --snapshot cannot tell the disks apart
		}
	}
	ref := func(name string, s *state) string { return name + "@" + s.snap }
	oldA, newA, newB := ref(a.new.f.name, a.new), ref(b.new.f.name, b.new), ref(next[1].new.f.name, next[1].new)
	h.oneDiskTwice(a.new, b.new)
	h.oneDiskTwice(b.new, next[1].new)

	twin, err := h.twin(b.new.f)
	if err != nil {
		h.problem("%v", err)
		return
	}
	defer os.Remove(h.path(twin))
	oldB := ref(twin, b.new)
	if f := next[1].new.f; f == b.new.f {
		newB = ref(twin, next[1].new)
	} else if f == a.new.f {
		return // the same image as sda's base, with another between them
	}
	h.counts["deltas of two disks"]++
	if _, ok := h.cbt(done, "diff", "--full", "--new", "sda="+oldA, "--new", "sdb="+oldB, "-o", "out/both0.cbt"); !ok {
		return
	}
	if _, ok := h.cbt(done, "diff", "--old", "sda="+oldA, "--new", "sda="+newA, "--old", "sdb="+oldB, "--new", "sdb="+newB,
		"-o", "out/both1.cbt"); !ok {
		return
	}
	ta, tb := h.out(".raw"), h.out(".raw")
	if _, ok := h.cbt(done, "restore", h.rawTarget(), "out/both0.cbt", "sda="+ta, "sdb="+tb); !ok {
		return
	}
	h.sameBytes(ta, a.truth, "disk sda of two")
	h.sameBytes(tb, b.truth, "disk sdb of two")
	one := h.out(".raw")
	if _, ok := h.cbt(done, "restore", h.rawTarget(), "out/both1.cbt", "sdb="+one); ok {
		h.sameBytes(one, next[1].truth, "disk sdb alone, after two")
	}
	if a.truth != b.truth {
		h.cbt(wrongBase, "apply", h.rawTarget(), "out/both1.cbt", "sda="+tb, "sdb="+ta)
		h.sameBytes(tb, b.truth, "disk that was not sda")
	}
	if _, ok := h.cbt(done, "apply", h.rawTarget(), "out/both1.cbt", "sda="+ta, "sdb="+tb); ok {
		h.sameBytes(ta, b.truth, "disk sda of two, applied")
		h.sameBytes(tb, next[1].truth, "disk sdb of two, applied")
	}
}

// oneDiskTwice demands that two states of one image are refused as two disks
// of one delta, and that nothing is written then.
func (h *history) oneDiskTwice(a, b *state) {
	if a.f != b.f {
		return
	}
	h.counts["two states of one disk refused"]++
	first, second, out := a.f.name, b.f.name, "out/twice.cbt"
	if h.crng.IntN(2) == 0 {
		second = h.path(second)
	}
	r, ok := h.cbt(usage, "diff", "--full", "--new", "sda="+first+"@"+a.snap, "--new", "sdb="+second+"@"+b.snap, "-o", out)
	if ok && !strings.Contains(r.Message(), "are two states of one disk, and a delta has one state of each disk") {
		h.problem("two states of one disk are refused with: %s", r.Message())
	}
	h.comparisons++
	if _, err := os.Lstat(h.path(out)); !errors.Is(err, os.ErrNotExist) {
		h.problem("%s is there although the run was refused (%v)", out, err)
		os.Remove(h.path(out))
	}
}

// twin copies an image to a name beside it, where the names of its backing
// files lead to the same. The caller removes it.
func (h *history) twin(f *file) (string, error) {
	name := strings.TrimSuffix(f.name, ".qcow2") + "-twin.qcow2"
	fmt.Fprintf(&h.log, "cp %s %s\n", quote(f.name), quote(name))
	return name, copyFile(h.path(name), h.path(f.name))
}

// contents makes deltas of what has no common metadata: raw files, and an
// image against a raw file.
func (h *history) contents() {
	if len(h.states) < 2 || h.crng.IntN(3) > 0 {
		return
	}
	a, b := h.states[h.crng.IntN(len(h.states))], h.states[h.crng.IntN(len(h.states))]
	if a.truth == b.truth {
		return
	}
	h.counts["deltas by content"]++
	base := h.out(".raw")
	if err := copyFile(base, a.truth); err != nil {
		h.problem("%v", err)
		return
	}
	flags := h.rawFlags("old", "new")
	if _, ok := h.cbt(done, append([]string{"diff", base, b.truth, "-o", fmt.Sprintf("out/content%d.cbt", h.outs)}, flags...)...); !ok {
		return
	}
	d := &delta{path: fmt.Sprintf("out/content%d.cbt", h.outs), truth: b.truth}
	// The file that a delta was made from is at its point, until it changes.
	h.apply(base, d)
	h.refuseApply(base, d)
	if b.alive && b.snap != "" {
		args, d := h.diffArgs(fmt.Sprintf("out/mixed%d.cbt", h.outs), nil, b)
		for i, arg := range args {
			if arg == "--full" {
				args[i] = a.truth
			}
		}
		if _, ok := h.cbt(done, append(args, h.rawFlags("old")...)...); ok {
			full := &delta{path: fmt.Sprintf("out/raw%d.cbt", h.outs), truth: a.truth}
			h.cbt(done, append([]string{"diff", "--full", a.truth, "-o", full.path}, h.rawFlags("new")...)...)
			if target := h.restore(full); target != "" {
				h.apply(target, d)
			}
		}
	}
}

// rawFlags says that files are raw which a guest made look like qcow2.
func (h *history) rawFlags(which ...string) (flags []string) {
	if !h.evil {
		return nil
	}
	for _, w := range which {
		if w != "" {
			w += "-"
		}
		flags = append(flags, "--"+w+"format=raw")
	}
	return flags
}

// againstOther demands that verify sees a difference where there is one.
func (h *history) againstOther(chain []*delta) {
	if len(chain) == 0 || h.crng.IntN(3) > 0 {
		return
	}
	d := chain[h.crng.IntN(len(chain))]
	other := h.out(".raw")
	if err := copyFile(other, d.truth); err != nil {
		h.problem("%v", err)
		return
	}
	flags := h.rawFlags("")
	h.cbt(done, append([]string{"verify", "--against", other, d.path}, flags...)...)
	f, err := os.OpenFile(other, os.O_RDWR, 0)
	if err != nil {
		h.problem("%v", err)
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		h.problem("%v", err)
		return
	}
	at, p := h.crng.Int64N(fi.Size()), []byte{0}
	if h.crng.IntN(4) == 0 {
		at = fi.Size() - 1
	}
	if _, err := f.ReadAt(p, at); err != nil {
		h.problem("%v", err)
	}
	p[0] ^= 1 << h.crng.IntN(8)
	if _, err := f.WriteAt(p, at); err != nil {
		h.problem("%v", err)
	}
	h.comparisons++
	h.cbt(findings, append([]string{"verify", "--against", other, d.path}, flags...)...)
}

// parts reads ranges of a state.
func (h *history) parts(s *state) {
	ref, flags := h.ref(s, "")
	truth, err := os.Open(s.truth)
	if err != nil {
		h.problem("%v", err)
		return
	}
	defer truth.Close()
	for range 2 {
		off := h.crng.Int64N(s.size)
		n := 1 + h.crng.Int64N(min(s.size-off, 300000))
		r, ok := h.cbt(done, append([]string{"cat", ref, fmt.Sprintf("--offset=%d", off), fmt.Sprintf("--length=%d", n)}, withoutFrozen(flags)...)...)
		if !ok {
			return
		}
		want := make([]byte, n)
		if _, err := truth.ReadAt(want, off); err != nil {
			h.problem("%v", err)
		}
		h.comparisons++
		if string(want) != string(r.Stdout) {
			h.problem("cat of %d bytes at %d of %v differs", n, off, s)
		}
	}
}

// startWriter returns once qemu-io has written, and so holds its lock.
func startWriter(writer *exec.Cmd, in io.Writer, out io.Reader) error {
	if err := writer.Start(); err != nil {
		return err
	}
	io.WriteString(in, "write -P 1 0 512\n")
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "wrote ") {
			go io.Copy(io.Discard, out)
			return nil
		}
	}
	return errors.New("qemu-io did not start to write")
}

// whileWritten reads snapshots while a machine writes to the active state,
// which cbt must not read then.
func (h *history) whileWritten(chain []*delta) {
	top := h.top()
	snaps := h.snapshotsOf(top)
	if len(snaps) < 2 || len(chain) == 0 || h.crng.IntN(3) > 0 {
		return
	}
	writer := exec.Command("qemu-io", "-f", "qcow2", "-t", "unsafe", "-d", "unmap", top.name)
	writer.Dir = h.dir
	in, err := writer.StdinPipe()
	if err == nil {
		var out io.Reader
		if out, err = writer.StdoutPipe(); err == nil {
			err = startWriter(writer, in, out)
		}
	}
	if err != nil {
		h.problem("%v", err)
		return
	}
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		defer in.Close()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			off := int64(i) * 7919 % max(top.size-4096, 1)
			if _, err := fmt.Fprintf(in, "write -q -P %d %d 4096\n", 1+i%255, off); err != nil {
				return
			}
			if i%10 == 9 {
				io.WriteString(in, "flush\n")
				time.Sleep(time.Millisecond)
			}
		}
	}()
	h.counts["read while written"]++
	h.log.WriteString("# from here on qemu-io writes to " + top.name + "\n")
	a, b := snaps[0], snaps[len(snaps)-1]
	h.cbt(busy, "cat", top.name, "--length=512")
	if d := h.diff("out/live.cbt", a, b); d != nil {
		h.cat(b)
		base := h.diff("out/live-full.cbt", nil, a)
		if base != nil {
			if target := h.restore(base); target != "" {
				h.apply(target, d)
			}
		}
	}
	close(stop)
	<-stopped
	writer.Wait()
}
