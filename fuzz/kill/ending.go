package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"cbt/fuzz/tool"
)

// atRandom kills a job at n instants, half of them near its end.
func (s *scene) atRandom(j job, n int) {
	whole := s.duration(j)
	if whole == 0 {
		return
	}
	killed, tries := 0, 0
	for ; killed < n && tries < 5*n; tries++ {
		at := s.rng.Float64()
		if tries%2 == 1 {
			at = 0.8 + at/5
		}
		after := time.Duration(at * float64(whole))
		if err := j.prepare(); err != nil {
			s.fault("%s: %v", j.name, err)
			return
		}
		start := time.Now()
		exit, stderr := s.endAfter(j.args, after, os.Kill)
		switch exit {
		case 128 + 9:
			killed++
		case 0: // done before: the machine is faster now
			whole = (3*whole + time.Since(start)) / 4
		default:
			s.fault("%s: exit %d: %s", j.name, exit, stderr)
		}
		// Sometimes the second attempt dies too.
		if tries%5 == 4 {
			s.endAfter(j.args, time.Duration(s.rng.Float64()*float64(whole)), os.Kill)
		}
		j.inspect(fmt.Sprintf("killed after %v of %v", after, whole))
	}
	s.ended += killed
	if killed < n/2 {
		s.fault("%s: only %d of %d runs were killed in time", j.name, killed, tries)
	}
	fmt.Printf("kill: %-20s lasts %v: killed at %d instants\n", j.name, whole.Round(time.Millisecond), killed)
}

// endAfter starts cbt, sends a signal after a while, and returns the exit code.
func (s *scene) endAfter(args []string, after time.Duration, sig os.Signal) (exit int, stderr string) {
	ctx, cancel := context.WithTimeout(context.Background(), tool.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.cfg.cbt, args...)
	var buf bytes.Buffer
	cmd.Stderr = &buf
	if err := cmd.Start(); err != nil {
		s.fault("%v", err)
		return -1, ""
	}
	timer := time.AfterFunc(after, func() { cmd.Process.Signal(sig) })
	defer timer.Stop()
	cmd.Wait()
	if ctx.Err() != nil {
		s.fault("cbt %v hung", args)
	}
	return tool.ExitCode(cmd.ProcessState), buf.String()
}

// interrupted sends SIGINT, after which cbt cleans up: exit 130, nothing new
// in the directory, nothing half done that passes for whole.
func (s *scene) interrupted(j job, n int) {
	whole := s.duration(j)
	if whole == 0 {
		return
	}
	stopped := 0
	for range n {
		if err := j.prepare(); err != nil {
			s.fault("%s: %v", j.name, err)
			return
		}
		before := s.names()
		after := time.Duration(s.rng.Float64() * float64(whole))
		exit, stderr := s.endAfter(j.args, after, os.Interrupt)
		when := fmt.Sprintf("interrupted after %v of %v", after, whole)
		switch exit {
		case 0:
		case 130:
			stopped++
			if left := s.names(); j.clean && !slices.Equal(left, before) {
				s.fault("%s %s: left %v", j.name, when, left)
			}
		default:
			s.fault("%s %s: exit %d: %s", j.name, when, exit, stderr)
		}
		if strings.Contains(stderr, "panic") {
			s.fault("%s %s: %s", j.name, when, stderr)
		}
		j.inspect(when)
	}
	s.ended += stopped
	fmt.Printf("kill: %-20s %d of %d runs interrupted\n", j.name, stopped, n)
}

func (s *scene) names() []string {
	entries, err := os.ReadDir(s.work)
	if err != nil {
		s.fault("%v", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// changing are the system calls by which cbt could change a file or a
// directory.
var changing = []string{
	"pwrite64", "write", "ftruncate", "fallocate", "copy_file_range",
	"fsync", "fdatasync", "sync_file_range", "fchmod",
	"rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "openat", "close",
}

// stepByStep kills a job at its first, second, third ... call of each kind:
// between any two steps of what makes a file whole.
func (s *scene) stepByStep(j job, most int) {
	killed := 0
	for _, call := range changing {
		for i, n := 0, 1; i < most; i++ {
			if err := j.prepare(); err != nil {
				s.fault("%s: %v", j.name, err)
				return
			}
			args := []string{"-f", "-qq", "-o", os.DevNull, "-e", "trace=" + call,
				"-e", "inject=" + call + ":signal=KILL:when=" + strconv.Itoa(n), s.cfg.cbt}
			r := tool.Cmd{}.Run("strace", append(args, j.args...)...)
			if r.Exit != 128+9 {
				if r.Failed() {
					s.fault("%s under strace: exit %d: %s", j.name, r.Exit, r.Message())
				}
				break
			}
			killed++
			j.inspect(fmt.Sprintf("killed at %s number %d", call, n))
			if n++; i > 10 {
				n += n / 4 // later calls are more of the same
			}
		}
	}
	s.ended += killed
	fmt.Printf("kill: %-20s killed at %d system calls\n", j.name, killed)
}
