// Chain measures what reading a chain of many increments costs, against a chain of two that leads to the same state.
// The long one and the short one are read in turns, each by a process of its own with empty caches (the files are in
// the page cache); the ratio is the median over the turns. By default there are 365 increments over an image of
// 64 GiB, which need about 1.5 GB of disk; -size 10 -every 1 -increments 10 is a dense one.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"cbt/cbt"
	"cbt/fuzz/tool"
)

const (
	mostOpen   = time.Second
	mostRatio  = 2.0
	mostMemory = 128 << 20
)

func main() {
	dir := flag.String("dir", "", "where the deltas are made (default: a new temporary directory); what is found there is used again")
	turns := flag.Int("runs", 9, "turns")
	increments := flag.Int("increments", 365, "increments of the long chain")
	writes := flag.Int("writes", 300, "writes of 4 to 64 KiB in each increment")
	size := flag.Int64("size", 64, "GiB of the image")
	every := flag.Int64("every", 64, "one cluster of 64 KiB in so many is in the full delta")
	noise := flag.Int64("noise", 3, "eight bytes in so many times eight do not compress")
	reads := flag.Int("reads", 2000, "reads of 4 KiB")
	read := flag.String("read", "", "only read the newest state in this directory, as the measured process does; -dir says where was written")
	flag.Parse()
	if flag.NArg() != 0 || *turns < 1 || *increments < 1 || *every < 1 || *size < 1 || *noise < 1 {
		fmt.Fprintln(os.Stderr, "chain: unexpected arguments")
		os.Exit(2)
	}
	met, err := true, error(nil)
	if *read != "" {
		err = measure(*read, *dir, *reads)
	} else {
		met, err = run(*dir, *turns, *increments, *writes, *reads, &image{size: *size << 30, every: *every, noise: *noise})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chain:", err)
		os.Exit(1)
	}
	if !met {
		os.Exit(3)
	}
}

// figures are what the measured process prints: seconds, and bytes a second.
type figures struct {
	Open, First, Anywhere, Written, Sequential, Extents float64
}

// measure reads the newest state in dir.
func measure(dir, places string, reads int) error {
	var f figures
	begin := time.Now()
	lap := func() float64 {
		s := time.Since(begin).Seconds()
		begin = time.Now()
		return s
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.cbt"))
	if err != nil {
		return err
	}
	var deltas []*cbt.Delta
	parent := map[string]bool{}
	for _, name := range names {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		st, err := file.Stat()
		if err != nil {
			return err
		}
		d, err := cbt.Open(file, st.Size())
		if err != nil {
			return err
		}
		deltas = append(deltas, d)
		if from := d.Header.Streams[0].From; from != nil {
			parent[from.Point] = true
		}
	}
	var stack *cbt.Stack
	for _, d := range deltas {
		if !parent[d.Header.Streams[0].To] {
			layers, err := cbt.Chain(d, 0, deltas)
			if err != nil {
				return err
			}
			if stack, err = cbt.NewStack(layers...); err != nil {
				return err
			}
		}
	}
	f.Open = lap()
	p := make([]byte, 4096)
	if _, err := stack.ReadAt(p, 0); err != nil {
		return err
	}
	f.First = lap()

	r := rand.New(rand.NewPCG(3, 4))
	at := make([]int64, reads)
	for i := range at {
		at[i] = r.Int64N(stack.Size()-4096) &^ 4095
	}
	written, err := readPlaces(filepath.Join(places, "done"))
	if err != nil {
		return err
	}
	there := make([]int64, reads)
	for i := range there {
		there[i] = written[r.IntN(len(written))]
	}
	for _, q := range []struct {
		at   []int64
		took *float64
	}{{at, &f.Anywhere}, {there, &f.Written}} {
		lap()
		for _, off := range q.at {
			if _, err := stack.ReadAt(p, off); err != nil {
				return err
			}
		}
		*q.took = lap()
	}
	const much = 4 << 30
	p = make([]byte, 128<<10)
	n := min(stack.Size(), much)
	for off := int64(0); off < n; off += int64(len(p)) {
		if _, err := stack.ReadAt(p, off); err != nil {
			return err
		}
	}
	f.Sequential = float64(n) / lap()
	for _, err := range stack.Extents(0, stack.Size()) {
		if err != nil {
			return err
		}
	}
	f.Extents = lap()
	return json.NewEncoder(os.Stdout).Encode(f)
}

func readPlaces(name string) (list []int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		n, err := strconv.ParseInt(s.Text(), 10, 64)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

func run(dir string, turns, increments, writes, reads int, m *image) (met bool, err error) {
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	keep := dir != ""
	dir, remove, err := tool.Work(dir, "cbt-bench-chain-")
	if err != nil {
		return false, err
	}
	defer remove()
	long := filepath.Join(dir, fmt.Sprintf("chain-%d-%d-%d-%d-%d", m.size>>30, m.every, m.noise, increments, writes))
	if !keep {
		defer os.RemoveAll(long)
	}
	if err := makeChains(long, m, increments, writes); err != nil {
		return false, err
	}
	var longs, twos []figures
	var memory [2]int64
	for turn := -1; turn < turns; turn++ { // turn -1 fills the page cache
		for i, d := range []string{long, filepath.Join(long, "two")} {
			r := tool.Cmd{}.Run(self, "-read", d, "-dir", long, "-reads", strconv.Itoa(reads))
			if r.Failed() {
				return false, fmt.Errorf("%s: exit %d: %s", d, r.Exit, r.Message())
			}
			var f figures
			if err := json.Unmarshal(r.Stdout, &f); err != nil {
				return false, err
			}
			memory[i] = max(memory[i], r.MaxRSS)
			if turn >= 0 && i == 0 {
				longs = append(longs, f)
			} else if turn >= 0 {
				twos = append(twos, f)
			}
		}
	}
	fmt.Printf("a full delta and %d increments of %d writes over %d GiB, against the same state in two deltas; medians of %d:\n", increments, writes, m.size>>30, turns)
	met = report(longs, twos, reads)
	if memory[0] >= mostMemory {
		met = false
	}
	fmt.Printf("  memory of the process: %.1f MiB (%.1f)%s\n", float64(memory[0])/(1<<20), float64(memory[1])/(1<<20), verdict(memory[0] < mostMemory))
	return met, nil
}

// report prints the figures and says whether the limits are kept.
func report(longs, twos []figures, reads int) bool {
	median := func(of []figures, get func(figures) float64) float64 {
		var v []float64
		for _, f := range of {
			v = append(v, get(f))
		}
		return tool.Median(v)
	}
	ratio := func(get func(figures) float64) float64 {
		var v []float64
		for i := range longs {
			v = append(v, get(longs[i])/get(twos[i]))
		}
		return tool.Median(v)
	}
	open := func(f figures) float64 { return f.Open + f.First }
	anywhere := func(f figures) float64 { return f.Anywhere }
	written := func(f figures) float64 { return f.Written }
	sequential := func(f figures) float64 { return f.Sequential }
	extents := func(f figures) float64 { return f.Extents }
	each := 1e6 / float64(reads)
	ok := []bool{median(longs, open) < mostOpen.Seconds(), ratio(anywhere) <= mostRatio, ratio(written) <= mostRatio}
	fmt.Printf("  opened and 4 KiB read: %.0f ms (%.0f)%s\n", median(longs, open)*1e3, median(twos, open)*1e3, verdict(ok[0]))
	fmt.Printf("  4 KiB anywhere:        %.1f µs (%.1f), ratio %.2f%s\n", median(longs, anywhere)*each, median(twos, anywhere)*each, ratio(anywhere), verdict(ok[1]))
	fmt.Printf("  4 KiB of increments:   %.1f µs (%.1f), ratio %.2f%s\n", median(longs, written)*each, median(twos, written)*each, ratio(written), verdict(ok[2]))
	fmt.Printf("  from front to back:    %.0f MB/s (%.0f)\n", median(longs, sequential)/1e6, median(twos, sequential)/1e6)
	fmt.Printf("  all extents:           %.0f ms (%.0f)\n", median(longs, extents)*1e3, median(twos, extents)*1e3)
	return ok[0] && ok[1] && ok[2]
}

func verdict(met bool) string {
	if met {
		return "  met"
	}
	return "  MISSED"
}
