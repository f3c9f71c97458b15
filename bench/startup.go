package main

import (
	"fmt"
	"path/filepath"
	"time"

	"cbt/fuzz/tool"
)

// startup is what starting cbt for almost nothing costs, against qemu-img doing the like.
type startup struct {
	name         string
	ours, theirs []string // arguments
	ratio        float64  // at most that many times as long as qemu-img
	times        []time.Duration
	others       []time.Duration // qemu-img's
	ratios       []float64
}

// startupTurns is how often each is started: it takes milliseconds, of which chance has a share.
const startupTurns = 100

// startups makes a small image in dir, measures each in so many turns, prints a line each and says whether every limit is kept.
func startups(bin, dir string, turns int) (met bool, err error) {
	image := filepath.Join(dir, "small.qcow2")
	for _, c := range [][]string{{"create", "-q", "-f", "qcow2", image, "64M"}, {"snapshot", "-c", "s0", image}} {
		if r := (tool.Cmd{}).Run("qemu-img", c...); r.Failed() {
			return false, fmt.Errorf("qemu-img %s: %s", c[0], r.Message())
		}
	}
	list := []*startup{
		{name: "version", ours: []string{"version"}, theirs: []string{"--version"}, ratio: 2},
		{name: "info small.qcow2", ours: []string{"info", image}, theirs: []string{"info", "-f", "qcow2", image}, ratio: 2},
	}
	for turn := -1; turn < turns; turn++ {
		for _, s := range list {
			if err := s.turn(bin, turn); err != nil {
				return false, err
			}
		}
	}
	met = true
	for _, s := range list {
		met = s.report() && met
	}
	return met, nil
}

// turn starts both, each first in every other turn. Turn -1 fills the page cache.
func (s *startup) turn(bin string, turn int) error {
	run := func(name string, args []string) (time.Duration, error) {
		r := tool.Cmd{}.Run(name, args...)
		if r.Failed() {
			return 0, fmt.Errorf("%s %s: exit %d: %s", name, args[0], r.Exit, r.Message())
		}
		return r.Elapsed, nil
	}
	var ours, theirs time.Duration
	var err error
	if turn%2 == 0 {
		ours, err = run(bin, s.ours)
	}
	if err == nil {
		theirs, err = run("qemu-img", s.theirs)
	}
	if err == nil && turn%2 != 0 {
		ours, err = run(bin, s.ours)
	}
	if err == nil && turn >= 0 {
		s.times, s.others = append(s.times, ours), append(s.others, theirs)
		s.ratios = append(s.ratios, ours.Seconds()/theirs.Seconds())
	}
	return err
}

// report prints one line and says whether the limit is kept.
func (s *startup) report() bool {
	ours, theirs, ratio := tool.Median(s.times), tool.Median(s.others), tool.Median(s.ratios)
	verdict := "met"
	if ratio > s.ratio {
		verdict = fmt.Sprintf("MISSED: ratio above %g", s.ratio)
	}
	fmt.Printf("%-26s %9.1f ms  %.2f of qemu-img's %.1f ms (medians of %d)  %s\n", s.name+":", float64(ours.Microseconds())/1000, ratio,
		float64(theirs.Microseconds())/1000, len(s.times), verdict)
	return ratio <= s.ratio
}
