package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"cbt/fuzz/tool"
)

// syncOrder reads from a trace that what gets a final name was synced before
// it, and its directory after it. A kill cannot show this, a power cut would.
func (s *scene) syncOrder() {
	for _, j := range s.jobs() {
		if err := j.prepare(); err != nil {
			s.fault("%s: %v", j.name, err)
			continue
		}
		args := append([]string{"-f", "-qq", "-y", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2,link,linkat", s.cfg.cbt}, j.args...)
		r := tool.Cmd{}.Run("strace", args...)
		if r.Failed() {
			s.fault("%s under strace: exit %d", j.name, r.Exit)
			continue
		}
		if err := ordered(string(r.Stderr), s.work, j); err != nil {
			s.fault("%s: %v in:\n%s", j.name, err, r.Stderr)
		}
	}
}

var (
	syncCall = regexp.MustCompile(`f(?:data)?sync\(\d+<([^>]*)>`)
	nameCall = regexp.MustCompile(`(?:rename|link)[a-z0-9]*\(.*"([^"]*)"`)
)

func ordered(trace, dir string, j job) error {
	final := ""
	for _, a := range j.args {
		if strings.HasPrefix(a, dir+"/") {
			final = a
		}
	}
	synced, named, dirSynced := false, false, false
	for _, line := range strings.Split(trace, "\n") {
		if m := syncCall.FindStringSubmatch(line); m != nil {
			if m[1] == dir {
				dirSynced = true
			} else {
				synced = true
			}
		}
		if m := nameCall.FindStringSubmatch(line); m != nil && strings.HasSuffix(final, m[1][strings.LastIndex(m[1], "/")+1:]) {
			if !synced {
				return fmt.Errorf("%s named before anything was synced", final)
			}
			named, dirSynced = true, false
		}
	}
	inPlace := j.name == "apply" || strings.HasSuffix(j.name, "--in-place")
	switch {
	case !synced:
		return fmt.Errorf("%s never synced", final)
	case !named && !inPlace:
		return fmt.Errorf("%s written under its final name", final)
	case !dirSynced:
		return fmt.Errorf("the directory of %s not synced last", final)
	}
	return nil
}

// pipes closes what cbt writes to, and cuts what it reads from.
func (s *scene) pipes() {
	for _, args := range [][]string{
		{"diff", s.image + "@s1", s.image + "@s2", "-o", "-"},
		{"diff", "--full", s.image + "@s1", "-o", "-"},
		{"cat", s.image + "@s1"},
		{"map", "--json", s.image},
	} {
		for _, n := range []int64{0, 1, 100, 70000} {
			s.closedPipe(n, args)
		}
		// A full disk below stdout is an error, not success.
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			continue
		}
		r := tool.Cmd{Stdout: full}.Run(s.cfg.cbt, args...)
		full.Close()
		if r.Exit != 1 || len(r.Stderr) == 0 {
			s.fault("cbt %v >/dev/full: exit %d: %s", args, r.Exit, r.Message())
		}
	}

	whole, err := os.ReadFile(s.d12)
	if err != nil {
		s.fault("%v", err)
		return
	}
	apply := s.jobs()[1]
	for _, n := range []int{0, 1, 11, 200, len(whole) / 2, len(whole) - 1} {
		if err := apply.prepare(); err != nil {
			s.fault("%v", err)
			return
		}
		r := tool.Cmd{Stdin: bytes.NewReader(whole[:n])}.Run(s.cfg.cbt, "apply", "-", s.in("target.raw"))
		if r.Exit < 1 || r.Exit > 5 || !s.holds(s.in("target.raw"), 1) {
			s.fault("apply of %d bytes of a delta: exit %d, target unchanged %v: %s", n, r.Exit, s.holds(s.in("target.raw"), 1), r.Message())
		}
		r = tool.Cmd{Stdin: bytes.NewReader(whole)}.Run(s.cfg.cbt, "apply", "-", s.in("target.raw"))
		if r.Failed() || !s.holds(s.in("target.raw"), 2) {
			s.fault("apply of the whole delta after a cut one: exit %d: %s", r.Exit, r.Message())
		}
	}
	fmt.Println("kill: closed and cut pipes done")
}

// closedPipe reads n bytes of what cbt prints and closes the pipe. A command
// whose output fits into the pipe may be done before it notices.
func (s *scene) closedPipe(n int64, args []string) {
	cmd := exec.Command(s.cfg.cbt, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	r, w, err := os.Pipe()
	if err != nil {
		s.fault("%v", err)
		return
	}
	cmd.Stdout = w
	err = cmd.Start()
	w.Close()
	if err != nil {
		s.fault("%v", err)
		return
	}
	io.CopyN(io.Discard, r, n)
	r.Close()
	cmd.Wait()
	exit := tool.ExitCode(cmd.ProcessState)
	if exit != 128+13 && !(exit == 0 && args[0] == "map") || strings.Contains(stderr.String(), "panic") {
		s.fault("cbt %v | head -c %d: exit %d: %s", args, n, exit, stderr.String())
	}
}

// fullDisk lets every job run into a full disk, then makes room.
func (s *scene) fullDisk() {
	room := s.in("")
	mount := func(mib int, how string) bool { return mountSmall(room, mib, how) }
	if err := s.fresh(); err != nil {
		s.fault("%v", err)
		return
	}
	if !mount(1, "") {
		fmt.Println("kill: cannot mount a tmpfs: full disks not tested")
		return
	}
	defer exec.Command("umount", room).Run()
	for _, j := range s.jobs() {
		if j.name == "restore --overwrite" {
			continue // like restore
		}
		for _, free := range []int{0, 1, s.cfg.mib / 4} {
			s.fullDiskJob(j, free, mount)
		}
	}
	fmt.Println("kill: full disks done")
}

func (s *scene) fullDiskJob(j job, free int, mount func(int, string) bool) {
	// The working directory is the mount point: emptied, not removed.
	empty := func() {
		for _, n := range s.names() {
			os.RemoveAll(s.in(n))
		}
	}
	empty()
	mount(4*s.cfg.mib, "remount,")
	target := s.in("target.raw")
	switch j.name {
	case "apply":
		if r := s.cbt("restore", s.full, target); r.Failed() {
			s.fault("restore: exit %d: %s", r.Exit, r.Message())
			return
		}
	case "restore --in-place":
		if err := os.WriteFile(target, bytes.Repeat([]byte{0xe5}, 1<<20), 0o644); err != nil {
			s.fault("%v", err)
			return
		}
		s.before, _ = hashFile(target)
		defer func() { s.before = "" }()
	}
	before := s.names()
	// Fill what is free but for a little: a tmpfs can be made as small as
	// what it holds, not smaller.
	filler := s.in("filler")
	if err := fillDisk(filler, free); err != nil {
		s.fault("%v", err)
		return
	}
	when := fmt.Sprintf("with %d MiB free", free)
	r := s.cbt(j.args...)
	os.Remove(filler)
	if r.Exit == 0 {
		j.inspect(when) // it needed less
		return
	}
	if r.Exit != 1 || len(r.Stderr) == 0 || bytes.Contains(r.Stderr, []byte("panic")) {
		s.fault("%s %s: exit %d: %s", j.name, when, r.Exit, r.Message())
	}
	if left := s.names(); j.clean && len(left) != len(before) {
		s.fault("%s %s: left %v", j.name, when, left)
	}
	s.ended++
	j.inspect(when)
	empty()
}

// fillDisk makes a file that takes all space but for some MiB.
func fillDisk(path string, free int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	io.Copy(f, zeros{})
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(max(fi.Size()-int64(free)<<20, 0)), f.Close())
}

// mountSmall mounts a file system of some MiB, how are more of its options.
func mountSmall(dir string, mib int, how string) bool {
	return exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("%ssize=%dm", how, mib), "tmpfs", dir).Run() == nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
