// Bench measures what `cbt diff` costs on a large image of which little
// changed, against `qemu-img map` on the same file, which reads all of the
// image's tables. Both run in turns; the ratio is the median over the turns.
// It begins with what starting `cbt version` and `cbt info` costs, against qemu-img.
// It needs about 400 MB of disk for a sparse file of 1 TiB.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cbt/fuzz/tool"
)

func main() {
	bin := flag.String("cbt", "", "cbt binary (default: $CBT, else built)")
	dir := flag.String("dir", "", "where the image is made (default: a new temporary directory); an image found there is used again")
	runs := flag.Int("runs", 9, "turns")
	flag.Parse()
	if flag.NArg() != 0 || *runs < 1 {
		fmt.Fprintln(os.Stderr, "bench: unexpected arguments")
		os.Exit(2)
	}
	met, err := run(*bin, *dir, *runs)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if !met {
		os.Exit(3)
	}
}

// question is two snapshots and what their diff may cost.
type question struct {
	name     string
	old, new string
	ratio    float64       // qemu-img map takes at least that many times as long; 0: not asked
	limit    time.Duration // 0: not asked
	read     int64         // bytes read at most; 0: not asked
}

var questions = []question{
	{name: "nothing changed", old: "s0", new: "s1", limit: 20 * time.Millisecond, read: 1 << 20},
	{name: "2,000 clusters in one run", old: "s1", new: "s2", ratio: 50},
	{name: "2,000 clusters scattered", old: "s2", new: "s3", ratio: 20},
}

const memoryLimit = 48 << 20

// answer is what one question cost in each turn.
type answer struct {
	diff   []time.Duration
	ratios []float64
	rss    int64
	read   int64
}

func run(bin, dir string, runs int) (met bool, err error) {
	tmp, err := os.MkdirTemp("", "cbt-bench-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(tmp)
	if bin, err = tool.Binary(bin, tmp); err != nil {
		return false, err
	}
	if dir == "" {
		dir = tmp
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	quick, err := startups(bin, tmp, startupTurns)
	if err != nil {
		return false, err
	}
	image := filepath.Join(dir, "1TiB.qcow2")
	if err := makeImage(image); err != nil {
		return false, err
	}
	answers := make([]answer, len(questions))
	var maps []time.Duration
	for turn := -1; turn < runs; turn++ { // turn -1 fills the page cache
		m := tool.Cmd{}.Run("qemu-img", "map", "-f", "qcow2", "--output=json", image)
		if m.Failed() {
			return false, fmt.Errorf("qemu-img map: %s", m.Message())
		}
		for i, q := range questions {
			r := tool.Cmd{}.Run(bin, "diff", "-v", "--json", image+"@"+q.old, image+"@"+q.new)
			if r.Failed() {
				return false, fmt.Errorf("cbt diff %s %s: exit %d: %s", q.old, q.new, r.Exit, r.Message())
			}
			if err := answers[i].add(turn, r, m); err != nil {
				return false, err
			}
		}
		if turn >= 0 {
			maps = append(maps, m.Elapsed)
		}
	}
	fmt.Printf("qemu-img map: %v (median of %d)\n", tool.Median(maps).Round(time.Millisecond), runs)
	met = quick
	for i, q := range questions {
		met = q.report(answers[i]) && met
	}
	return met, nil
}

func (a *answer) add(turn int, r, m tool.Result) (err error) {
	a.rss = max(a.rss, r.MaxRSS)
	if a.read, err = bytesRead(r.Stderr); err != nil {
		return err
	}
	if turn >= 0 {
		a.diff = append(a.diff, r.Elapsed)
		a.ratios = append(a.ratios, m.Elapsed.Seconds()/r.Elapsed.Seconds())
	}
	return nil
}

// report prints one line and says whether every limit is kept.
func (q question) report(a answer) bool {
	time, ratio := tool.Median(a.diff), tool.Median(a.ratios)
	var missed []string
	if q.ratio != 0 && ratio < q.ratio {
		missed = append(missed, fmt.Sprintf("ratio below %g", q.ratio))
	}
	if q.limit != 0 && time >= q.limit {
		missed = append(missed, fmt.Sprintf("time not under %v", q.limit))
	}
	if q.read != 0 && a.read >= q.read {
		missed = append(missed, fmt.Sprintf("read not under %d bytes", q.read))
	}
	if a.rss >= memoryLimit {
		missed = append(missed, fmt.Sprintf("memory not under %d MiB", memoryLimit>>20))
	}
	verdict := "met"
	if len(missed) != 0 {
		verdict = "MISSED: " + strings.Join(missed, ", ")
	}
	fmt.Printf("%-26s %9.1f ms  1/%-6.0f of map  %10d bytes read  %5.1f MiB memory  %s\n",
		q.name+":", float64(time.Microseconds())/1000, ratio, a.read, float64(a.rss)/(1<<20), verdict)
	return len(missed) == 0
}
