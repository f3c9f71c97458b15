// Kill ends cbt in the middle of its work, by SIGKILL at random instants and
// at every system call that changes a file, by full disks, closed pipes and
// interrupts, and looks at what it left: never part of a file under its final
// name, never a target that is half one state and half another and passes for
// whole, and the same command completes the work.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"cbt/fuzz/tool"
)

func main() {
	var cfg config
	flag.IntVar(&cfg.kills, "n", 200, "kills of each command at random instants")
	flag.IntVar(&cfg.steps, "steps", 60, "kills of each command at each kind of system call (needs strace)")
	flag.IntVar(&cfg.interrupts, "interrupts", 30, "interrupts of each command")
	flag.IntVar(&cfg.pairs, "pairs", 20, "pairs of each command at the same time")
	flag.IntVar(&cfg.alterations, "alterations", 100, "runs of each kind between which others write to the target, the source or the deltas")
	flag.BoolVar(&cfg.altered, "altered", false, "only these")
	flag.IntVar(&cfg.mib, "mib", 96, "size of the image in MiB: what makes the commands last")
	flag.Uint64Var(&cfg.seed, "seed", 1, "seed of the instants")
	flag.StringVar(&cfg.dir, "dir", "", "working directory (default: a new temporary one)")
	flag.StringVar(&cfg.cbt, "cbt", "", "cbt binary (default: $CBT, else built)")
	flag.BoolVar(&cfg.chains, "chains", false, "only merge and prune")
	flag.BoolVar(&cfg.keep, "keep", false, "keep the working directory")
	flag.Parse()
	if flag.NArg() != 0 || cfg.mib < 1 {
		fmt.Fprintln(os.Stderr, "kill: unexpected arguments")
		os.Exit(2)
	}
	faults, err := cfg.run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kill:", err)
		os.Exit(1)
	}
	if faults != 0 {
		os.Exit(1)
	}
}

type config struct {
	kills, steps, interrupts, pairs, mib int
	alterations                          int
	seed                                 uint64
	dir, cbt                             string
	keep, chains, altered                bool
}

// run makes the scene, plays all rounds and returns the number of faults.
func (cfg config) run() (faults int, err error) {
	base, err := os.MkdirTemp(cfg.dir, "cbt-kill-")
	if err != nil {
		return 0, err
	}
	if !cfg.keep {
		defer os.RemoveAll(base)
	}
	if cfg.cbt, err = tool.Binary(cfg.cbt, base); err != nil {
		return 0, err
	}
	s, err := newScene(cfg, base)
	if err != nil {
		return 0, err
	}
	if cfg.altered {
		s.altered(cfg.alterations)
		fmt.Printf("kill: %d faults\n", s.faults)
		return s.faults, nil
	}
	_, err = exec.LookPath("strace")
	if err := s.chainRounds(err == nil); err != nil {
		return 0, err
	}
	if cfg.chains {
		fmt.Printf("kill: %d runs ended early, %d faults\n", s.ended, s.faults)
		return s.faults, nil
	}
	for _, j := range s.jobs() {
		s.atRandom(j, cfg.kills)
		s.interrupted(j, cfg.interrupts)
	}
	if err != nil {
		fmt.Println("kill: no strace: not killed step by step")
	} else if cfg.steps > 0 {
		for _, j := range s.jobs() {
			s.stepByStep(j, cfg.steps)
		}
		s.syncOrder()
	}
	s.backups()
	s.altered(cfg.alterations)
	s.together(cfg.pairs)
	s.pipes()
	s.fullDisk()
	fmt.Printf("kill: %d runs ended early, %d faults\n", s.ended, s.faults)
	return s.faults, nil
}

// scene is an image with three snapshots, their ground truth, and deltas.
type scene struct {
	cfg    config
	rng    *rand.Rand
	base   string // directory of all
	image  string
	truth  [4]string // of s1, s2 and s3
	sum    [4]string // their hashes
	full   string    // deltas: full of s1,
	d12    string    // s1 to s2,
	d23    string
	d13    string
	work   string // directory of the attempt
	before string // hash of the attempt's target, where it is none of the known ones
	ended  int
	faults int
	chains *chains
	counts tool.Counts
	lasts  map[string]time.Duration // of commands
}

func newScene(cfg config, base string) (*scene, error) {
	s := &scene{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.seed, 7)), base: base, counts: tool.Counts{}, lasts: map[string]time.Duration{}}
	s.image = filepath.Join(base, "disk.qcow2")
	s.work = filepath.Join(base, "work")
	deltas := filepath.Join(base, "deltas")
	if err := os.Mkdir(deltas, 0o755); err != nil {
		return nil, err
	}
	size := int64(cfg.mib) << 20
	if err := s.qemu("qemu-img", "create", "-q", "-f", "qcow2", s.image, fmt.Sprint(size)); err != nil {
		return nil, err
	}
	for i := 1; i <= 3; i++ {
		if err := s.phase(i, size); err != nil {
			return nil, err
		}
	}
	s.full, s.d12 = filepath.Join(deltas, "full.cbt"), filepath.Join(deltas, "d12.cbt")
	s.d23, s.d13 = filepath.Join(deltas, "d23.cbt"), filepath.Join(base, "d13.cbt")
	for _, args := range [][]string{
		{"diff", "--full", s.image + "@s1", "-o", s.full},
		{"diff", s.image + "@s1", s.image + "@s2", "-o", s.d12},
		{"diff", s.image + "@s2", s.image + "@s3", "-o", s.d23},
		{"diff", s.image + "@s1", s.image + "@s3", "-o", s.d13},
	} {
		if r := s.cbt(args...); r.Failed() {
			return nil, fmt.Errorf("cbt %v: exit %d: %s", args, r.Exit, r.Message())
		}
	}
	return s, nil
}

// phase writes other random bytes and zeros over parts of the image and takes
// snapshot i.
func (s *scene) phase(i int, size int64) error {
	noise := make([]byte, 1<<20)
	var seed [32]byte
	seed[0] = byte(i)
	rand.NewChaCha8(seed).Read(noise)
	pattern := filepath.Join(s.base, "noise")
	if err := os.WriteFile(pattern, noise, 0o644); err != nil {
		return err
	}
	part := size / 8
	args := []string{"-f", "qcow2", "-t", "unsafe", "-d", "unmap"}
	for k := range int64(5) {
		args = append(args, "-c", fmt.Sprintf("write -q -s %s %d %d", pattern, (int64(i)+k)%8*part, part-int64(i)*5000))
	}
	args = append(args, "-c", fmt.Sprintf("write -q -z %d %d", int64(i)*part, part/4))
	if err := s.qemu("qemu-io", append(args, s.image)...); err != nil {
		return err
	}
	if err := s.qemu("qemu-img", "snapshot", "-c", fmt.Sprintf("s%d", i), s.image); err != nil {
		return err
	}
	s.truth[i] = filepath.Join(s.base, fmt.Sprintf("truth%d.raw", i))
	if err := s.qemu("qemu-img", "convert", "-f", "qcow2", "-O", "raw", s.image, s.truth[i]); err != nil {
		return err
	}
	var err error
	s.sum[i], err = hashFile(s.truth[i])
	return err
}

func (s *scene) qemu(name string, args ...string) error {
	if r := (tool.Cmd{}).Run(name, args...); r.Failed() {
		return fmt.Errorf("%s %v: %s", name, args, r.Message())
	}
	return nil
}

func (s *scene) cbt(args ...string) tool.Result { return tool.Cmd{}.Run(s.cfg.cbt, args...) }

func (s *scene) fault(format string, args ...any) {
	s.faults++
	if s.faults <= 50 {
		fmt.Printf("FAULT %s\n", fmt.Sprintf(format, args...))
	}
}

// fresh empties the working directory.
func (s *scene) fresh() error {
	if err := os.RemoveAll(s.work); err != nil {
		return err
	}
	return os.Mkdir(s.work, 0o755)
}

func (s *scene) in(name string) string { return filepath.Join(s.work, name) }

// duration is how long a job takes when nobody disturbs it: the median of
// three runs.
func (s *scene) duration(j job) time.Duration {
	var times []time.Duration
	for range 3 {
		if err := j.prepare(); err != nil {
			s.fault("%s: %v", j.name, err)
			return 0
		}
		r := s.cbt(j.args...)
		if r.Failed() {
			s.fault("%s undisturbed: exit %d: %s", j.name, r.Exit, r.Message())
			return 0
		}
		times = append(times, r.Elapsed)
	}
	j.inspect("undisturbed")
	slices.Sort(times)
	return times[1]
}
