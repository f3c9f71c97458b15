// Lvm compares cbt with the kernel and LVM. It boots test machines, makes a
// random history of thin, thick and external-origin volumes in each, keeps
// what the kernel reads of every volume after each step, and asks cbt for the
// same bytes: inside the machine, live, and on the disk images once the
// machine is off. Besides, it kills and interrupts cbt while it holds a pool's
// metadata snapshot. A history is determined by its seed: `lvm -n 1 -seed S`
// repeats one.
package main

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"cbt/fuzz/tool"
)

func main() {
	var cfg config
	flag.IntVar(&cfg.n, "n", 40, "how many histories, each in a machine of its own")
	flag.IntVar(&cfg.steps, "steps", 40, "steps of a history")
	flag.IntVar(&cfg.kills, "kills", 200, "how many runs of cbt are killed or interrupted in the end")
	flag.Uint64Var(&cfg.seed, "seed", 1, "seed of the first history; the next has seed+1")
	flag.IntVar(&cfg.jobs, "j", 1, "machines at a time")
	flag.BoolVar(&cfg.keep, "keep", false, "keep the directories of all histories, not only of failing ones")
	flag.BoolVar(&cfg.dry, "dry", false, "do not run cbt: make the histories and check that the kernel keeps what is frozen")
	flag.StringVar(&cfg.dir, "dir", "", "where the histories are made (default: a new temporary directory)")
	flag.StringVar(&cfg.cbt, "cbt", "", "cbt binary, static (default: $CBT, else built)")
	flag.BoolVar(&cfg.verbose, "v", false, "print each history's log as it grows")
	flag.Parse()
	if flag.NArg() != 0 {
		fmt.Fprintln(os.Stderr, "lvm: unexpected argument", flag.Arg(0))
		os.Exit(2)
	}
	total, err := cfg.run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lvm:", err)
		os.Exit(1)
	}
	fmt.Println("lvm: covered:", total.coverage)
	fmt.Printf("lvm: %d histories, %d comparisons, %d differences\n", total.histories, total.comparisons, total.differences)
	if total.differences != 0 {
		os.Exit(1)
	}
}

type config struct {
	n, steps, kills, jobs int
	seed                  uint64
	keep, dry, verbose    bool
	dir, cbt              string
}

type totals struct {
	histories, comparisons, differences int
	coverage                            tool.Counts
}

// run makes and checks the histories. It removes what it made, except the
// directories of failing histories, which it names on stdout.
func (cfg config) run() (totals, error) {
	total := totals{coverage: tool.Counts{}}
	dir, remove, err := tool.Work(cfg.dir, "cbt-lvm-")
	if err != nil {
		return total, err
	}
	defer remove() // stays when failing histories are in it
	cfg.dir = dir
	bin, err := os.MkdirTemp("", "cbt-bin-")
	if err != nil {
		return total, err
	}
	defer os.RemoveAll(bin)
	if !cfg.dry {
		if cfg.cbt, err = tool.Binary(cfg.cbt, bin); err != nil {
			return total, err
		}
	}

	type job struct {
		seed uint64
		do   func(*round)
	}
	jobs := make(chan job)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range max(cfg.jobs, 1) {
		wg.Go(func() {
			for j := range jobs {
				start := time.Now()
				r := newRound(cfg, j.seed)
				j.do(r)
				mu.Lock()
				total.add(r, time.Since(start))
				mu.Unlock()
			}
		})
	}
	for i := range cfg.n {
		jobs <- job{cfg.seed + uint64(i), (*round).history}
	}
	if cfg.kills > 0 && !cfg.dry {
		jobs <- job{cfg.seed, (*round).interruptions}
	}
	close(jobs)
	wg.Wait()
	return total, nil
}

func (t *totals) add(r *round, took time.Duration) {
	t.histories++
	t.comparisons += r.comparisons
	t.differences += len(r.problems)
	t.coverage.Add(r.counts)
	fmt.Fprintf(os.Stderr, "lvm: seed %d: %d comparisons, %d problems, %v\n", r.seed, r.comparisons, len(r.problems), took.Round(time.Second))
	if len(r.problems) > 0 {
		fmt.Printf("FAIL seed %d in %s: %d problems, the first: %s\n", r.seed, r.dir, len(r.problems), r.problems[0])
	}
}
