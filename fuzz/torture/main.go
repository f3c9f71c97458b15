// Torture compares cbt with QEMU. It makes random histories of qcow2 images
// with qemu-img and qemu-io, keeps what `qemu-img convert` reads right after
// each snapshot, and then asks cbt for the same states by every way it knows:
// restored, applied, printed, served from deltas. A history is determined by
// its seed: `torture -n 1 -seed S` repeats one.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"cbt/fuzz/tool"
)

func main() {
	var cfg config
	flag.IntVar(&cfg.n, "n", 2000, "how many histories")
	flag.Uint64Var(&cfg.seed, "seed", 1, "seed of the first history; the next has seed+1")
	flag.IntVar(&cfg.jobs, "j", 2, "histories at a time")
	flag.BoolVar(&cfg.keep, "keep", false, "keep the directories of all histories, not only of failing ones")
	flag.BoolVar(&cfg.dry, "dry", false, "do not run cbt: make the histories and take their ground truth twice")
	flag.StringVar(&cfg.dir, "dir", "", "where the histories are made (default: a new temporary directory)")
	flag.StringVar(&cfg.cbt, "cbt", "", "cbt binary (default: $CBT, else built)")
	flag.Parse()
	if flag.NArg() != 0 {
		fmt.Fprintln(os.Stderr, "torture: unexpected argument", flag.Arg(0))
		os.Exit(2)
	}
	total, err := cfg.run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
	fmt.Println("torture: covered:", total.coverage)
	fmt.Printf("torture: %d histories, %d comparisons, %d differences\n", total.histories, total.comparisons, total.differences)
	if total.differences != 0 {
		os.Exit(1)
	}
}

type config struct {
	n, jobs   int
	seed      uint64
	keep, dry bool
	dir, cbt  string
}

type totals struct {
	histories, comparisons, differences, failing int
	coverage                                     tool.Counts
}

// run makes and checks the histories. It removes what it made, except the
// directories of failing histories, which it names on stdout.
func (cfg config) run() (totals, error) {
	total := totals{coverage: tool.Counts{}}
	dir, remove, err := tool.Work(cfg.dir, "cbt-torture-")
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
	pat, err := writePatterns(bin)
	if err != nil {
		return total, err
	}

	seeds := make(chan uint64)
	var wg sync.WaitGroup
	var mu sync.Mutex
	last := time.Now()
	for range max(cfg.jobs, 1) {
		wg.Go(func() {
			for seed := range seeds {
				h, err := cfg.one(seed, pat)
				mu.Lock()
				total.add(h, err, seed)
				if time.Since(last) > 10*time.Second {
					last = time.Now()
					fmt.Fprintf(os.Stderr, "torture: %d of %d histories, %d comparisons, %d failing\n",
						total.histories, cfg.n, total.comparisons, total.failing)
				}
				mu.Unlock()
			}
		})
	}
	for i := range cfg.n {
		seeds <- cfg.seed + uint64(i)
	}
	close(seeds)
	wg.Wait()
	return total, nil
}

// one makes and checks the history of one seed.
func (cfg config) one(seed uint64, pat []string) (*history, error) {
	for attempt := range uint64(20) {
		h, err := newHistory(cfg, seed, attempt, pat)
		if err != nil {
			return nil, err
		}
		if h.make(); h.spoilt && len(h.problems) == 0 {
			continue
		}
		if attempt > 0 {
			h.counts["made again because QEMU spoilt an image"]++
		}
		if cfg.dry {
			h.selfCheck()
		} else {
			h.check()
		}
		h.close(cfg.keep)
		return h, nil
	}
	return nil, errors.New("QEMU spoilt the images of 20 attempts")
}

func (t *totals) add(h *history, err error, seed uint64) {
	t.histories++
	if err != nil {
		t.failing++
		t.differences++
		fmt.Printf("FAIL seed %d: %v\n", seed, err)
		return
	}
	t.comparisons += h.comparisons
	t.differences += len(h.problems)
	t.coverage.Add(h.counts)
	if len(h.problems) == 0 {
		return
	}
	t.failing++
	fmt.Printf("FAIL seed %d in %s: %d problems, the first: %s\n", seed, h.dir, len(h.problems), h.problems[0])
}
