package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cbt/fuzz/tool"
)

// altered lets others write to what cbt left, between a run that was killed and
// the next one, or between two runs: to the target, to the source, to the
// directory of deltas. The next run ends with the right bytes, or it refuses and
// writes nothing.
func (s *scene) altered(n int) {
	c, err := s.newChains()
	if err != nil {
		s.fault("%v", err)
		return
	}
	for i := range n {
		s.alteredPrune(c, i)
		s.alteredApply(i)
		s.alteredRestore(i)
		s.alteredWhole(i)
		s.alteredBackup(i)
	}
	fmt.Printf("kill: alterations between two runs: %d of each kind: %s\n", n, s.counts)
}

// chained makes the working directory one with a chain of its own, in deltas/, and
// a target that is at s1.
func (s *scene) chained() (target, full, d12, d23 string, ok bool) {
	dir := s.in("deltas")
	err := s.fresh()
	if err == nil {
		err = os.Mkdir(dir, 0o755)
	}
	for _, name := range []string{s.full, s.d12, s.d23} {
		if err == nil {
			err = copyFile(filepath.Join(dir, filepath.Base(name)), name)
		}
	}
	if err != nil {
		s.fault("%v", err)
		return "", "", "", "", false
	}
	in := func(name string) string { return filepath.Join(dir, filepath.Base(name)) }
	target = s.in("target.raw")
	if r := s.cbt("restore", in(s.full), target); r.Failed() {
		s.fault("restore: exit %d: %s", r.Exit, r.Message())
		return "", "", "", "", false
	}
	return target, in(s.full), in(s.d12), in(s.d23), true
}

// killed kills a command within the time that it lasts.
func (s *scene) killed(args []string, lasts time.Duration) {
	s.endAfter(args, time.Duration(s.rng.Float64()*float64(lasts)), os.Kill)
}

// lasting is how long a job lasts; it is measured once.
func (s *scene) lasting(name string) time.Duration {
	if s.lasts[name] == 0 {
		for _, j := range s.jobs() {
			if j.name == name {
				s.lasts[name] = s.duration(j)
			}
		}
	}
	return s.lasts[name]
}

// alteredApply: apply is killed, and then something happens.
func (s *scene) alteredApply(i int) {
	lasts := s.lasting("apply")
	target, full, d12, _, ok := s.chained()
	if !ok {
		return
	}
	s.killed([]string{"apply", d12, target}, lasts)
	what, err := "nothing", error(nil)
	switch i % 4 {
	case 0:
		what, err = "full.cbt gone", os.Rename(full, full+".gone")
	case 1:
		what, err = "full.cbt damaged", s.damage(full)
	default:
		what, err = tool.Alter(s.rng, target)
	}
	if err != nil {
		s.fault("apply killed, then %s: %v", what, err)
		return
	}
	s.rightOrRefused("apply killed, then "+what, target, s.sum[2], "apply", d12, target)
	// What is left is made whole by what the messages say.
	os.Rename(full+".gone", full)
	if strings.Contains(what, "damaged") {
		if err := copyFile(full, s.full); err != nil {
			s.fault("%v", err)
		}
	}
	if r := s.cbt("restore", "--in-place", d12, target); r.Failed() || !s.holds(target, 2) {
		s.fault("apply killed, then %s: restore --in-place: exit %d: %s", what, r.Exit, r.Message())
	}
}

// alteredRestore: restore --in-place is killed, and then something happens.
func (s *scene) alteredRestore(i int) {
	lasts := s.lasting("restore --in-place")
	target, full, d12, _, ok := s.chained()
	if !ok {
		return
	}
	args := []string{"restore", "--in-place", d12, target}
	s.killed(args, lasts)
	what, err := tool.Alter(s.rng, target)
	if i%5 == 0 {
		what, err = "full.cbt gone", os.Rename(full, full+".gone")
	}
	if err != nil {
		s.fault("restore --in-place killed, then %s: %v", what, err)
		return
	}
	s.rightOrRefused("restore --in-place killed, then "+what, target, s.sum[2], args...)
}

// alteredWhole: nothing is killed, but what apply left is written to.
func (s *scene) alteredWhole(int) {
	target, _, d12, d23, ok := s.chained()
	if !ok {
		return
	}
	if r := s.cbt("apply", d12, target); r.Failed() {
		s.fault("apply: exit %d: %s", r.Exit, r.Message())
		return
	}
	what, err := tool.Alter(s.rng, target)
	if err != nil {
		s.fault("applied, then %s: %v", what, err)
		return
	}
	s.rightOrRefused("applied, then "+what, target, s.sum[3], "apply", d23, target)
}

// rightOrRefused runs cbt: it ends with the right bytes in the target, or leaves
// it as it is, with an exit code and a word.
func (s *scene) rightOrRefused(when, target, want string, args ...string) {
	before, err := hashFile(target)
	if err != nil {
		s.fault("%s: %v", when, err)
		return
	}
	r := s.cbt(args...)
	now, err := hashFile(target)
	what := when[strings.LastIndex(when, ", then ")+7:]
	switch {
	case err != nil:
		s.fault("%s: %v", when, err)
	case r.Exit == 0 && now != want:
		s.fault("%s: cbt %s ends with 0, and the bytes are wrong", when, strings.Join(args, " "))
	case r.Exit == 0:
		s.counts["right after "+what]++
	case r.Exit < 1 || r.Exit > 5 || len(r.Stderr) == 0:
		s.fault("%s: exit %d: %s", when, r.Exit, r.Message())
	case now != before:
		s.fault("%s: refused (exit %d), and the target was written to: %s", when, r.Exit, r.Message())
	default:
		s.counts["refused after "+what]++
	}
}

// alteredBackup: the backup of a raw file is killed, then the file is written to,
// or the directory is.
func (s *scene) alteredBackup(i int) {
	lasts := s.lasting("restore") // about as long
	if err := s.fresh(); err != nil {
		s.fault("%v", err)
		return
	}
	source, dir := s.in("source.raw"), s.in("b")
	err := errors.Join(os.Mkdir(dir, 0o755), copyFile(source, s.truth[1]))
	if err != nil {
		s.fault("%v", err)
		return
	}
	args := []string{"backup", "--name", "vm", source, dir}
	first := s.cbt(args...)
	if first.Failed() {
		s.fault("backup of a raw file: exit %d: %s", first.Exit, first.Message())
		return
	}
	if i%3 == 0 { // another night
		if err := overwriteWith(source, s.truth[2]); err != nil {
			s.fault("%v", err)
			return
		}
	}
	s.killed(args, lasts)
	what := ""
	if i%4 == 1 {
		what, err = "a delta of the directory damaged", s.damage(strings.TrimSpace(string(first.Stdout)))
	} else if i%4 == 2 {
		what, err = "a delta of the directory gone", os.Remove(strings.TrimSpace(string(first.Stdout)))
	} else {
		what, err = tool.Alter(s.rng, source)
	}
	when := "backup killed, then " + what
	if err != nil {
		s.fault("%s: %v", when, err)
		return
	}
	want, _ := hashFile(source)
	r := s.cbt(args...)
	if r.Exit != 0 {
		if r.Exit < 1 || r.Exit > 5 || len(r.Stderr) == 0 {
			s.fault("%s: exit %d: %s", when, r.Exit, r.Message())
		}
		s.counts["refused after "+what]++
		return
	}
	// The newest point is the file as it is now; a damaged chain is refused.
	out := s.in("out.raw")
	restored := s.cbt("restore", strings.TrimSpace(string(r.Stdout)), out)
	switch got, err := hashFile(out); {
	case restored.Failed():
		if !strings.Contains(what, "damaged") {
			s.fault("%s: restore: exit %d: %s", when, restored.Exit, restored.Message())
		}
	case err != nil || got != want:
		s.fault("%s: %s is not what the file holds (%v): %s", when, strings.TrimSpace(string(r.Stdout)), err, r.Message())
	default:
		s.counts["right after "+what]++
	}
}

// alteredPrune: prune is killed, and a delta of the directory goes or is damaged
// before it runs again. What can be read of a point is right.
func (s *scene) alteredPrune(c *chains, i int) {
	args := []string{"prune", s.work, "--keep-last", "3"}
	if s.lasts["prune"] == 0 {
		if !s.copyChains(c) {
			return
		}
		s.lasts["prune"] = s.cbt(args...).Elapsed
	}
	if !s.copyChains(c) {
		return
	}
	s.killed(args, s.lasts["prune"])
	var deltas []string
	for _, name := range s.names() {
		if c.sums[name] != nil {
			deltas = append(deltas, name)
		}
	}
	lost := deltas[s.rng.IntN(len(deltas))]
	what, err := "a delta gone", error(nil)
	if i%2 == 0 {
		err = os.Remove(s.in(lost))
	} else {
		what, err = "a delta damaged", s.damage(s.in(lost))
	}
	when := fmt.Sprintf("prune killed, then %s (%s)", what, lost)
	if err != nil {
		s.fault("%s: %v", when, err)
		return
	}
	r := s.cbt(args...)
	if r.Exit < 0 || r.Exit > 5 || r.Failed() && len(r.Stderr) == 0 {
		s.fault("%s: exit %d: %s", when, r.Exit, r.Message())
	}
	for _, name := range s.names() {
		for stream, sum := range c.sums[name] {
			h := sha256.New()
			r := tool.Cmd{Stdout: h}.Run(s.cfg.cbt, "cat", s.in(name)+"@"+stream)
			switch got := fmt.Sprintf("%x", h.Sum(nil)); {
			case r.Exit == 0 && got != sum:
				s.fault("%s: %s of %s is read, and wrong", when, stream, name)
			case r.Exit == 0:
				s.counts["right after "+what]++
			default:
				s.counts["refused after "+what]++
			}
		}
	}
}

// copyChains makes the working directory one of copies of the deltas.
func (s *scene) copyChains(c *chains) bool {
	err := s.fresh()
	for name := range c.sums {
		if err == nil {
			err = copyFile(s.in(name), filepath.Join(c.dir, name))
		}
	}
	if err != nil {
		s.fault("%v", err)
	}
	return err == nil
}

// damage flips a byte in the middle of a delta.
func (s *scene) damage(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	return tool.FlipByte(path, fi.Size()/4+s.rng.Int64N(fi.Size()/2))
}

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// overwriteWith makes a file what another one is, in place.
func overwriteWith(path, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
