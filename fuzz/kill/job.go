package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cbt/fuzz/tool"
)

// job is one command that gets killed. inspect looks at what it left, runs it
// again and looks at the result.
type job struct {
	name    string
	args    []string
	prepare func() error
	inspect func(when string)
	clean   bool // leaves nothing at all behind when it is interrupted
}

func (s *scene) jobs() []job {
	target, delta, qcow2 := s.in("target.raw"), s.in("out.cbt"), s.in("target.qcow2")
	garbage := func() error {
		if err := s.fresh(); err != nil {
			return err
		}
		return os.WriteFile(target, bytes.Repeat([]byte{0xe5}, s.cfg.mib<<20+12345), 0o644)
	}
	restored := func() error {
		if err := s.fresh(); err != nil {
			return err
		}
		if r := s.cbt("restore", s.full, target); r.Failed() {
			return fmt.Errorf("restore %s: exit %d: %s", s.full, r.Exit, r.Message())
		}
		return nil
	}
	jobs := []job{
		{name: "diff -o", clean: true, args: []string{"diff", s.image + "@s1", s.image + "@s2", "-o", delta}, prepare: s.fresh},
		{name: "apply", args: []string{"apply", s.d12, target}, prepare: restored},
		{name: "restore", clean: true, args: []string{"restore", s.d12, target}, prepare: s.fresh},
		{name: "restore --overwrite", args: []string{"restore", s.d12, target, "--overwrite"}, prepare: garbage},
		{name: "restore --in-place", args: []string{"restore", s.d12, target, "--in-place"}, prepare: garbage},
		{name: "restore qcow2", clean: true, args: []string{"restore", s.d12, qcow2, "--target-format", "qcow2"}, prepare: s.fresh},
	}
	for i := range jobs {
		j := jobs[i]
		switch {
		case j.name == "diff -o":
			jobs[i].inspect = func(when string) { s.inspectDelta(j, when, delta) }
		case j.name == "restore qcow2":
			jobs[i].inspect = func(when string) { s.inspectNew(j, when, qcow2) }
		case j.clean:
			jobs[i].inspect = func(when string) { s.inspectNew(j, when, target) }
		default:
			jobs[i].inspect = func(when string) { s.inspectTarget(j, when, target) }
		}
	}
	return jobs
}

// inspectDelta: the delta is there whole or not at all.
func (s *scene) inspectDelta(j job, when, path string) {
	s.noOther(j, when, path)
	if !exists(path) {
		if r := s.cbt(j.args...); r.Failed() {
			s.fault("%s %s: again: exit %d: %s", j.name, when, r.Exit, r.Message())
			return
		}
	}
	if !same(path, s.d12) {
		s.fault("%s %s: the delta is not what it should be", j.name, when)
	}
}

// inspectNew: a new target is there whole or not at all.
func (s *scene) inspectNew(j job, when, path string) {
	s.noOther(j, when, path)
	there := exists(path)
	if there && !s.holds(path, 2) {
		s.fault("%s %s: %s is there and is not the state", j.name, when, filepath.Base(path))
	}
	r := s.cbt(j.args...)
	if r.Failed() && there && strings.HasSuffix(path, ".raw") {
		// A target that is whole need not be made again, but must be usable.
		r = s.cbt("apply", s.d23, path)
		if r.Failed() {
			s.fault("%s %s: the target is whole but neither the same command nor apply goes on: exit %d: %s", j.name, when, r.Exit, r.Message())
		} else if !s.holds(path, 3) {
			s.fault("%s %s: applied afterwards, and it is not the state", j.name, when)
		}
		return
	}
	if r.Failed() && !there {
		s.fault("%s %s: again: exit %d: %s", j.name, when, r.Exit, r.Message())
		return
	}
	s.goOn(j, when, path)
}

// inspectTarget: a target that is written in place, or replaced, is as before,
// whole, or marked: then nothing takes it for anything but the same command.
func (s *scene) inspectTarget(j job, when, path string) {
	s.noOther(j, when, "")
	sum, err := hashFile(path)
	if err != nil {
		s.fault("%s %s: %v", j.name, when, err)
		return
	}
	mixed := !s.known(sum)
	if mixed && strings.HasSuffix(j.name, "--overwrite") {
		s.fault("%s %s: the target is neither old nor new", j.name, when)
	}
	if mixed {
		s.refused(j, when, path, sum, "cat", path)
		s.refused(j, when, path, sum, "diff", "--full", path, "-o", s.in("of-mixed.cbt"))
		s.refused(j, when, path, sum, "diff", path, s.truth[3], "-o", s.in("of-mixed.cbt"))
	}
	if sum != s.sum[2] {
		s.refused(j, when, path, sum, "apply", s.d23, path)
	}
	if sum != s.sum[1] {
		s.refused(j, when, path, sum, "apply", s.d13, path)
	}
	again := s.cbt(j.args...)
	if again.Failed() && sum != s.sum[2] {
		s.fault("%s %s: again: exit %d: %s", j.name, when, again.Exit, again.Message())
		return
	}
	s.goOn(j, when, path)
}

// goOn: the target is s2, and usable as such.
func (s *scene) goOn(j job, when, path string) {
	if !s.holds(path, 2) {
		s.fault("%s %s: run again, and it is not the state", j.name, when)
		return
	}
	if strings.HasSuffix(path, ".qcow2") {
		return
	}
	if r := s.cbt("apply", s.d23, path); r.Failed() {
		s.fault("%s %s: run again, then the next delta: exit %d: %s", j.name, when, r.Exit, r.Message())
	} else if !s.holds(path, 3) {
		s.fault("%s %s: run again, then the next delta, and it is not the state", j.name, when)
	}
}

// refused demands that cbt fails and leaves the target as it is.
func (s *scene) refused(j job, when, path, sum string, args ...string) {
	r := tool.Cmd{Stdout: io.Discard}.Run(s.cfg.cbt, args...)
	if !r.Failed() || r.Exit < 0 || r.Exit > 5 {
		s.fault("%s %s: exit %d of cbt %s", j.name, when, r.Exit, strings.Join(args, " "))
	}
	if args[0] == "apply" && r.Exit != 4 {
		s.fault("%s %s: exit %d, want 4, of cbt %s: %s", j.name, when, r.Exit, strings.Join(args, " "), r.Message())
	}
	if now, err := hashFile(path); err != nil || now != sum {
		s.fault("%s %s: cbt %s changed the target: %v", j.name, when, strings.Join(args, " "), err)
	}
}

// noOther: nothing ends like a delta that is none.
func (s *scene) noOther(j job, when, path string) {
	entries, err := os.ReadDir(s.work)
	if err != nil {
		s.fault("%v", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".cbt") && e.Name() != filepath.Base(path) {
			s.fault("%s %s: left %s", j.name, when, e.Name())
		}
		if e.Name() == filepath.Base(path) {
			continue
		}
		if fi, err := e.Info(); err == nil && e.Type().IsRegular() && fi.Mode().Perm()&0o077 != 0 && e.Name() != "target.raw" {
			s.fault("%s %s: %s can be read by others: %v", j.name, when, e.Name(), fi.Mode())
		}
	}
}

// known is true for the content of a target before and after the job.
func (s *scene) known(sum string) bool {
	return sum == s.sum[1] || sum == s.sum[2] || sum == s.garbageSum() || sum == s.before
}

func (s *scene) garbageSum() string {
	if s.sum[0] == "" {
		h := sha256.New()
		h.Write(bytes.Repeat([]byte{0xe5}, s.cfg.mib<<20+12345))
		s.sum[0] = fmt.Sprintf("%x", h.Sum(nil))
	}
	return s.sum[0]
}

// holds is true when the target's content is that of snapshot i.
func (s *scene) holds(path string, i int) bool {
	if strings.HasSuffix(path, ".qcow2") {
		if s.qemu("qemu-img", "check", "-q", "-f", "qcow2", path) != nil {
			return false
		}
		raw := filepath.Join(s.base, "holds.raw")
		if s.qemu("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw) != nil {
			return false
		}
		path = raw
	}
	sum, err := hashFile(path)
	return err == nil && sum == s.sum[i]
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func same(a, b string) bool {
	x, err := hashFile(a)
	y, err2 := hashFile(b)
	return err == nil && err2 == nil && x == y
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
