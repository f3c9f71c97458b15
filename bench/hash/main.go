// Hash measures `cbt hash` against coreutils on the same raw file in the page cache, and what --audit adds to
// `cbt cat`. Both run in turns; a ratio is the median over the turns. It needs a GiB of disk and of memory.
package main

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"cbt/fuzz/tool"
)

const size = 1 << 30

func main() {
	bin := flag.String("cbt", "", "cbt binary (default: $CBT, else built)")
	dir := flag.String("dir", "", "where the files are made (default: a new temporary directory); what is found there is used again")
	runs := flag.Int("runs", 7, "turns")
	flag.Parse()
	if flag.NArg() != 0 || *runs < 1 {
		fmt.Fprintln(os.Stderr, "hash: unexpected arguments")
		os.Exit(2)
	}
	met, err := run(*bin, *dir, *runs)
	if err != nil {
		fmt.Fprintln(os.Stderr, "hash:", err)
		os.Exit(1)
	}
	if !met {
		os.Exit(3)
	}
}

func run(bin, dir string, runs int) (met bool, err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "cbt-bench-hash-"); err != nil {
			return false, err
		}
		defer os.RemoveAll(dir)
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	if bin, err = tool.Binary(bin, dir); err != nil {
		return false, err
	}
	full, sparse := filepath.Join(dir, "full.raw"), filepath.Join(dir, "sparse.raw")
	if err := makeFiles(full, sparse); err != nil {
		return false, err
	}
	met = true
	for _, q := range []struct {
		name, theirs, ours, file string
		most                     float64 // times theirs; 0: not asked
	}{
		{"sha256", `sha256sum "$2"`, `"$1" hash "$2"`, full, 1},
		{"sha256, 7/8 holes", `sha256sum "$2"`, `"$1" hash "$2"`, sparse, 1},
		{"sha256 and its pieces", `sha256sum "$2"`, `"$1" hash --piece 1M "$2"`, full, 0},
		{"md5", `md5sum "$2"`, `"$1" hash --algo md5 "$2"`, full, 0},
		{"md5, sha1, sha256", `md5sum "$2"; sha1sum "$2"; sha256sum "$2"`, `"$1" hash --algo md5,sha1,sha256 "$2"`, full, 1},
		{"cat with --audit", `"$1" cat "$2" | cat`, `"$1" cat --audit "$2.audit" "$2" | cat`, full, 0},
		{"cat with --hash both", `"$1" cat "$2" | cat`, `"$1" cat --audit "$2.audit" --hash both "$2" | cat`, full, 0},
	} {
		var theirs, ours []time.Duration
		var ratios []float64
		for turn := -1; turn < runs; turn++ { // turn -1 fills the page cache
			var took [2]time.Duration
			for i, command := range []string{q.theirs, q.ours} {
				r := tool.Cmd{}.Run("sh", "-c", "{ "+command+"; } >/dev/null", "sh", bin, q.file)
				if r.Failed() {
					return false, fmt.Errorf("%s: %s", command, r.Message())
				}
				took[i] = r.Elapsed
			}
			if turn >= 0 {
				theirs, ours = append(theirs, took[0]), append(ours, took[1])
				ratios = append(ratios, took[1].Seconds()/took[0].Seconds())
			}
		}
		ratio, verdict := tool.Median(ratios), ""
		if q.most > 0 {
			verdict = "met"
			if ratio > q.most {
				met, verdict = false, fmt.Sprintf("MISSED: above %g", q.most)
			}
		}
		fmt.Printf("%-22s %8v, without cbt hash or its flag %8v: %.2f times  %s\n", q.name+":",
			tool.Median(ours).Round(time.Millisecond), tool.Median(theirs).Round(time.Millisecond), ratio, verdict)
	}
	return met, nil
}

// makeFiles makes a file of random bytes and one that has an eighth of them.
func makeFiles(full, sparse string) error {
	for i, path := range []string{full, sparse} {
		if st, err := os.Stat(path); err == nil && st.Size() == size {
			continue
		}
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), size>>(3*i))
		if err == nil {
			err = f.Truncate(size)
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}
