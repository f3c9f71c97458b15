package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"cbt/fuzz/tool"
)

// backups kills, interrupts and doubles runs of backup: whatever happens, the
// directory is whole, and the next run completes it.
func (s *scene) backups() {
	// Not clean: an interrupt may come when the delta has its name, and only
	// that was not told yet.
	j := job{name: "backup", args: []string{"backup", s.image + "@s3", s.work}}
	j.prepare = func() error { return s.stock(s.full, s.d12) }
	j.inspect = func(when string) { s.inspectStore(j, when) }
	s.atRandom(j, s.cfg.kills)
	s.interrupted(j, s.cfg.interrupts)
	if _, err := exec.LookPath("strace"); err == nil && s.cfg.steps > 0 {
		s.stepByStep(j, s.cfg.steps)
	}
	s.backupsTogether(j, s.cfg.pairs)
}

// stock makes the working directory one of these deltas.
func (s *scene) stock(deltas ...string) error {
	if err := s.fresh(); err != nil {
		return err
	}
	for _, name := range deltas {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.in(filepath.Base(name)), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// inspectStore: all deltas are whole, and after one more run there is one that
// leads to s3, and nothing but deltas.
func (s *scene) inspectStore(j job, when string) {
	if r := s.cbt("verify", s.work); r.Failed() {
		s.fault("%s %s: the directory is not whole: exit %d: %s", j.name, when, r.Exit, r.Message())
	}
	r := s.cbt(j.args...)
	if r.Failed() {
		s.fault("%s %s: again: exit %d: %s", j.name, when, r.Exit, r.Message())
		return
	}
	s.leadsTo(j, when, strings.TrimSpace(string(r.Stdout)), 3)
	for _, name := range s.names() {
		if !strings.HasSuffix(name, ".cbt") || strings.HasPrefix(name, ".") {
			s.fault("%s %s: left %s", j.name, when, name)
		}
	}
	if n := len(s.names()); n != 3 {
		s.fault("%s %s: %d files, want 3: %v", j.name, when, n, s.names())
	}
}

// leadsTo: the delta gives the content of snapshot i.
func (s *scene) leadsTo(j job, when, delta string, i int) {
	raw := filepath.Join(s.base, "restored.raw")
	defer os.Remove(raw)
	if r := s.cbt("restore", delta, raw, "--overwrite"); r.Failed() {
		s.fault("%s %s: restore %s: exit %d: %s", j.name, when, delta, r.Exit, r.Message())
	} else if !s.holds(raw, i) {
		s.fault("%s %s: %s is not s%d", j.name, when, delta, i)
	}
	os.Remove(raw + ".cbt-state")
}

// backupsTogether runs two at the same time: of one snapshot, and of two.
func (s *scene) backupsTogether(j job, n int) {
	for i := range n {
		if err := s.stock(s.full); err != nil {
			s.fault("%s: %v", j.name, err)
			return
		}
		of := [2]int{3, 2 + i%2}
		var r [2]tool.Result
		var wg sync.WaitGroup
		for k := range r {
			wg.Go(func() { r[k] = s.cbt("backup", fmt.Sprintf("%s@s%d", s.image, of[k]), s.work) })
		}
		wg.Wait()
		when := fmt.Sprintf("of s%d and s%d at once", of[0], of[1])
		for k := range r {
			if r[k].Failed() {
				s.fault("%s %s: exit %d: %s", j.name, when, r[k].Exit, r[k].Message())
				continue
			}
			s.leadsTo(j, when, strings.TrimSpace(string(r[k].Stdout)), of[k])
		}
		if v := s.cbt("verify", s.work); v.Failed() {
			s.fault("%s %s: exit %d: %s", j.name, when, v.Exit, v.Message())
		}
	}
	fmt.Println("kill: backups together done")
}
