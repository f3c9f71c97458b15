// Thin measures what finding the changes between two thin devices costs, against thin_delta on the same
// metadata. Both run in turns, each as a process of its own that prints what it found; the ratio is the median
// over the turns. The devices, made with thin_restore, share no node, so everything has to be read. It needs
// about 800 MB of disk, in the page cache once it was read; thin_delta always reads with O_DIRECT.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"cbt/fuzz/tool"
	"cbt/lvm/thin"
)

func main() {
	dir := flag.String("dir", "", "where the metadata are made (default: a new temporary directory); what is found there is used again")
	runs := flag.Int("runs", 9, "turns")
	blocks := flag.Int64("mappings", 4_000_000, "mappings of each of the two devices")
	changed := flag.String("changed", "", "only print what changed from device 1 to 2 in this file, as the measured process does")
	direct := flag.Bool("direct", false, "with -changed: read with O_DIRECT")
	flag.Parse()
	if flag.NArg() != 0 || *runs < 1 || *blocks < 1000 {
		fmt.Fprintln(os.Stderr, "thin: unexpected arguments")
		os.Exit(2)
	}
	met, err := true, error(nil)
	if *changed != "" {
		err = printChanged(*changed, *direct)
	} else {
		met, err = run(*dir, *runs, *blocks)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "thin:", err)
		os.Exit(1)
	}
	if !met {
		os.Exit(3)
	}
}

// printChanged is the measured process.
func printChanged(file string, direct bool) error {
	f, err := open(file, direct)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	m, err := thin.Open(f, st.Size(), thin.Options{})
	if err != nil {
		return err
	}
	size := int64(1)
	for _, id := range []uint32{1, 2} {
		v, err := m.View(id, 0, thin.Data{}, nil)
		if err != nil {
			return err
		}
		end, err := v.MappedEnd()
		if err != nil {
			return err
		}
		size = max(size, end)
	}
	old, err := m.View(1, size, thin.Data{}, nil)
	if err != nil {
		return err
	}
	new, err := m.View(2, size, thin.Data{}, nil)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(os.Stdout)
	for e, err := range thin.Changed(old, new, 0, size) {
		if err != nil {
			return err
		}
		line := strconv.AppendInt(w.AvailableBuffer(), e.Off, 10)
		line = append(line, ' ')
		line = strconv.AppendInt(line, e.Len, 10)
		w.Write(append(line, '\n'))
	}
	fmt.Fprintf(os.Stderr, "%d nodes read\n", m.NodesRead())
	return errors.Join(w.Flush(), m.Recheck())
}

const memoryLimit = 64 << 20

// way is one way to read, and how much faster than thin_delta it has to be.
type way struct {
	name  string
	args  []string
	ratio float64
}

var ways = []way{
	{"from the page cache", nil, 20},
	{"with O_DIRECT", []string{"-direct"}, 5},
}

// answer is what one way cost in each turn.
type answer struct {
	took   []time.Duration
	ratios []float64
	rss    int64
}

func run(dir string, runs int, blocks int64) (met bool, err error) {
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "cbt-bench-thin-"); err != nil {
			return false, err
		}
		defer os.RemoveAll(dir)
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	met = true
	for _, p := range pools {
		file := filepath.Join(dir, fmt.Sprintf("%s-%d", p.file, blocks))
		if err := p.make(file, blocks); err != nil {
			return false, err
		}
		fmt.Printf("%s, %d mappings each:\n", p.name, blocks)
		answers := make([]answer, len(ways))
		var deltas []time.Duration
		for turn := -1; turn < runs; turn++ { // turn -1 fills the page cache, and compares
			d := tool.Cmd{}.Run("thin_delta", "--snap1", "1", "--snap2", "2", file)
			if d.Failed() {
				return false, fmt.Errorf("thin_delta: %s", d.Message())
			}
			for i, w := range ways {
				r := tool.Cmd{}.Run(self, append(slices.Clone(w.args), "-changed", file)...)
				if r.Failed() {
					return false, fmt.Errorf("%s: exit %d: %s", w.name, r.Exit, r.Message())
				}
				if turn < 0 {
					if err := sameBlocks(r.Stdout, d.Stdout); err != nil {
						return false, err
					}
				}
				answers[i].add(turn, r, d)
			}
			if turn >= 0 {
				deltas = append(deltas, d.Elapsed)
			}
		}
		fmt.Printf("  thin_delta: %v (median of %d)\n", tool.Median(deltas).Round(time.Millisecond), runs)
		for i, w := range ways {
			met = w.report(answers[i]) && met
		}
	}
	return met, nil
}

func (a *answer) add(turn int, r, delta tool.Result) {
	a.rss = max(a.rss, r.MaxRSS)
	if turn >= 0 {
		a.took = append(a.took, r.Elapsed)
		a.ratios = append(a.ratios, delta.Elapsed.Seconds()/r.Elapsed.Seconds())
	}
}

// report prints one line and says whether the limits are kept.
func (w way) report(a answer) bool {
	ratio, verdict := tool.Median(a.ratios), "met"
	if ratio < w.ratio {
		verdict = fmt.Sprintf("MISSED: ratio below %g", w.ratio)
	}
	if a.rss >= memoryLimit {
		verdict = fmt.Sprintf("MISSED: memory not under %d MiB", memoryLimit>>20)
	}
	fmt.Printf("  %-20s %8.1f ms  1/%-5.1f of thin_delta  %5.1f MiB memory  %s\n", w.name+":",
		float64(tool.Median(a.took).Microseconds())/1000, ratio, float64(a.rss)/(1<<20), verdict)
	return ratio >= w.ratio && a.rss < memoryLimit
}
