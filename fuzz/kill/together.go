package main

import (
	"fmt"
	"sync"
	"time"

	"cbt/fuzz/tool"
)

// together runs two commands on one target at the same time, n times. Whatever each of
// them answers, the target is one state, and is known as that state.
func (s *scene) together(n int) {
	jobs := s.jobs()
	other := map[string][]string{
		"apply":              {"apply", s.d13, s.in("target.raw")},
		"restore":            {"restore", s.d23, s.in("target.raw")},
		"restore --in-place": {"restore", s.d23, s.in("target.raw"), "--in-place"},
		"diff -o":            {"diff", s.image + "@s2", s.image + "@s3", "-o", s.in("out.cbt")},
	}
	for _, j := range jobs {
		args, ok := other[j.name]
		if !ok {
			continue
		}
		for i := range n {
			if err := j.prepare(); err != nil {
				s.fault("%s: %v", j.name, err)
				return
			}
			if i%2 == 0 {
				args = j.args
			} else {
				args = other[j.name]
			}
			var first, second tool.Result
			var wg sync.WaitGroup
			wg.Go(func() { first = s.cbt(j.args...) })
			wg.Go(func() {
				time.Sleep(time.Duration(s.rng.Int64N(int64(20 * time.Millisecond))))
				second = s.cbt(args...)
			})
			wg.Wait()
			when := fmt.Sprintf("together with cbt %v (exit %d and %d)", args, first.Exit, second.Exit)
			for _, r := range []tool.Result{first, second} {
				if r.Exit < 0 || r.Exit > 5 {
					s.fault("%s %s: %s", j.name, when, r.Message())
				}
			}
			if first.Failed() && second.Failed() {
				s.fault("%s %s: both failed: %s; %s", j.name, when, first.Message(), second.Message())
				continue
			}
			s.oneOf(j, when)
		}
	}
	fmt.Println("kill: commands together done")
}

// oneOf: the result is what one of the two commands makes.
func (s *scene) oneOf(j job, when string) {
	if j.name == "diff -o" {
		if out := s.in("out.cbt"); !same(out, s.d12) && !same(out, s.d23) {
			s.fault("%s %s: the delta is neither", j.name, when)
		}
		return
	}
	target := s.in("target.raw")
	switch {
	case s.holds(target, 2):
		s.goOn(j, when, target)
	case s.holds(target, 3):
		sum := s.sum[3]
		s.refused(j, when, target, sum, "apply", s.d23, target)
		s.refused(j, when, target, sum, "apply", s.d13, target)
	default:
		s.fault("%s %s: the target is neither state", j.name, when)
	}
}
