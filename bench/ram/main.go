// Ram measures what reading the RAM of a saved machine costs, against cat on the same files in the page cache: the
// index of the pages of a state of 2 GiB, and the delta between two of which one page in 20 differs. QEMU makes the
// states; they need about 6 GiB of disk, and as much memory for the page cache.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cbt/fuzz/tool"
)

const (
	fillSize = 1 << 30 // twice: QEMU loads no 2 GiB at once
	fillAt   = 16 << 20
	pageSize = 4096
)

func main() {
	bin := flag.String("cbt", "", "cbt binary (default: $CBT, else built)")
	dir := flag.String("dir", "", "where the states are made (default: a new temporary directory); what is found there is used again")
	runs := flag.Int("runs", 9, "turns")
	flag.Parse()
	if flag.NArg() != 0 || *runs < 1 {
		fmt.Fprintln(os.Stderr, "ram: unexpected arguments")
		os.Exit(2)
	}
	met, err := run(*bin, *dir, *runs)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ram:", err)
		os.Exit(1)
	}
	if !met {
		os.Exit(3)
	}
}

func run(bin, dir string, runs int) (met bool, err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "cbt-bench-ram-"); err != nil {
			return false, err
		}
		defer os.RemoveAll(dir)
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	if bin, err = tool.Binary(bin, dir); err != nil {
		return false, err
	}
	old, img := filepath.Join(dir, "old.state"), filepath.Join(dir, "new.state")
	if err := makeStates(dir, old, img); err != nil {
		return false, err
	}
	sh := func(command string, args ...string) (time.Duration, error) {
		r := tool.Cmd{}.Run("sh", append([]string{"-c", command + " >/dev/null", "sh"}, args...)...)
		if r.Failed() {
			return 0, fmt.Errorf("%s: %s", command, r.Message())
		}
		return r.Elapsed, nil
	}
	met = true
	for _, q := range []struct {
		name, cat, cbt string
		most           float64 // times cat
	}{
		{"index of one state", `cat "$2"`, `"$1" info --json "$2"`, 2},
		{"delta of two", `cat "$2" "$3"`, `"$1" diff --ram only "$2" "$3" -o -`, 3},
	} {
		var cats, ours []time.Duration
		var ratios []float64
		for turn := -1; turn < runs; turn++ { // turn -1 fills the page cache
			c, err := sh(q.cat, bin, old, img)
			if err != nil {
				return false, err
			}
			o, err := sh(q.cbt, bin, old, img)
			if err != nil {
				return false, err
			}
			if turn >= 0 {
				cats, ours, ratios = append(cats, c), append(ours, o), append(ratios, o.Seconds()/c.Seconds())
			}
		}
		verdict := "met"
		if tool.Median(ratios) > q.most {
			met, verdict = false, fmt.Sprintf("MISSED: more than %g times", q.most)
		}
		fmt.Printf("%-20s %6d ms  %4.2f times cat (%d ms)  %s\n", q.name+":", tool.Median(ours).Milliseconds(), tool.Median(ratios), tool.Median(cats).Milliseconds(), verdict)
	}
	return met, nil
}

// makeStates has QEMU save two machines whose RAM was filled at random.
func makeStates(dir, old, img string) error {
	var fills [2]string
	for i := range fills {
		fills[i] = filepath.Join(dir, fmt.Sprint("fill", i))
		defer os.Remove(fills[i])
	}
	for i, state := range []string{old, img} {
		if _, err := os.Stat(state); err == nil {
			continue
		}
		args := []string{"-accel", "tcg", "-M", "pc", "-m", fmt.Sprint((2*fillSize + fillAt) >> 20), "-S", "-nodefaults", "-vga", "none", "-display", "none", "-monitor", "stdio"}
		for n, fill := range fills {
			if err := writeFill(fill, byte(n), i == 1); err != nil {
				return err
			}
			args = append(args, "-device", fmt.Sprintf("loader,addr=%d,force-raw=on,file=%s", fillAt+n*fillSize, fill))
		}
		commands := fmt.Sprintf("migrate_set_parameter max-bandwidth 100G\nmigrate \"exec:cat>%s\"\nquit\n", state)
		r := tool.Cmd{Stdin: strings.NewReader(commands)}.Run("qemu-system-x86_64", args...)
		if r.Failed() {
			return fmt.Errorf("QEMU: %s", r.Message())
		}
	}
	return nil
}

// writeFill writes pages at random; if some is set, one in 20 is another one.
func writeFill(path string, seed byte, some bool) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	rnd, other := rand.NewChaCha8([32]byte{seed}), rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 1<<20)
	for off := 0; off < fillSize; off += len(buf) {
		rnd.Read(buf)
		for p := buf; some && len(p) > 0; p = p[pageSize:] {
			if other.IntN(20) == 0 {
				copy(p, bytes.Repeat([]byte{byte(other.Uint32())}, 64))
			}
		}
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return f.Close()
}
