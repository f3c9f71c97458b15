package base_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const last = 5 // snapshots s0 to s5, five deltas between them

// disjoint gives each snapshot changes of its own, none of which another
// touches: the old content of what a delta overwrites then never tells that
// the base is wrong, only the points do.
func disjoint(t testing.TB, seed byte) func(i int) []string {
	return func(i int) []string {
		at := i * 96 << 10
		return []string{
			fmt.Sprintf("write -q -s %s %d 20000", noise(t, seed+byte(i), 4096), at),
			fmt.Sprintf("write -q -P %d %d 100", 1+i, at+40<<10),
			fmt.Sprintf("write -q -z %d 8192", at+4096),
		}
	}
}

func disjointChain(t testing.TB) chain {
	dir := t.TempDir()
	return makeChain(t, dir, filepath.Join(dir, "disk.qcow2"), last+1, "cluster_size=4096", 600<<10, disjoint(t, 1))
}

// sequences gives every sequence of the deltas 1 to last, with repetitions,
// of at most n.
func sequences(n int) [][]int {
	all := [][]int{}
	for level := [][]int{nil}; n > 0; n-- {
		var next [][]int
		for _, s := range level {
			for d := 1; d <= last; d++ {
				next = append(next, append(slices.Clone(s), d))
			}
		}
		all, level = append(all, next...), next
	}
	return all
}

// right is true when the deltas lead from s(start) on without a gap.
func right(start int, seq []int) bool {
	for i, d := range seq {
		if d != start+1+i {
			return false
		}
	}
	return true
}

func TestEveryWrongSequenceIsRefused(t *testing.T) {
	c := disjointChain(t)
	rng := rand.New(rand.NewPCG(1, 1))
	runs := 0
	for start := range last + 1 {
		dir := t.TempDir()
		target := filepath.Join(dir, "target.raw")
		must(t, "restore", c.deltas[start], target)
		before := listing(t, dir)
		for _, seq := range sequences(last) {
			if repeats := len(seq) > 3 && !distinct(seq); repeats && !long && rng.IntN(30) != 0 {
				continue
			}
			args := []string{"apply"}
			for _, d := range seq {
				args = append(args, c.deltas[d])
			}
			args = append(args, target)
			runs++
			if !right(start, seq) {
				refused(t, dir, before, []int{4}, nil, args...)
				continue
			}
			must(t, args...)
			if end := start + len(seq); !bytes.Equal(readFile(t, target), c.states[end]) {
				t.Fatalf("s%d and deltas %v: not s%d", start, seq, end)
			}
			// Applied is applied: the same command again does not fit.
			os.Remove(target)
			must(t, "restore", c.deltas[start], target, "--overwrite")
			before = listing(t, dir)
		}
	}
	t.Logf("%d sequences on %d states", runs, last+1)
}

func distinct(seq []int) bool {
	s := slices.Sorted(slices.Values(seq))
	return len(slices.Compact(s)) == len(seq)
}

// TestWrongStates applies every delta to targets of which nothing, something
// else or something out of date is known.
func TestWrongStates(t *testing.T) {
	c := disjointChain(t)
	scratch := func(name string) {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{7}, 599<<10); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for name, prepare := range map[string]func(t *testing.T, target string, i int){
		"no record": func(t *testing.T, target string, i int) { writeFile(t, target, c.states[i]) },
		"written to since": func(t *testing.T, target string, i int) {
			must(t, "restore", c.deltas[i], target)
			scratch(target)
		},
		"cut since": func(t *testing.T, target string, i int) {
			must(t, "restore", c.deltas[i], target)
			if err := os.Truncate(target, 500<<10); err != nil {
				t.Fatal(err)
			}
		},
		"grown since": func(t *testing.T, target string, i int) {
			must(t, "restore", c.deltas[i], target)
			if err := os.Truncate(target, 800<<10); err != nil {
				t.Fatal(err)
			}
		},
		"another file under the name": func(t *testing.T, target string, i int) {
			must(t, "restore", c.deltas[i], target)
			writeFile(t, target+".new", c.states[(i+1)%last])
			if err := os.Rename(target+".new", target); err != nil {
				t.Fatal(err)
			}
		},
		"empty": func(t *testing.T, target string, i int) { writeFile(t, target, nil) },
		"no target": func(t *testing.T, target string, i int) {
		},
		"a directory": func(t *testing.T, target string, i int) {
			if err := os.Mkdir(target, 0o755); err != nil {
				t.Fatal(err)
			}
		},
		"the record of another target": func(t *testing.T, target string, i int) {
			must(t, "restore", c.deltas[(i+1)%last], target)
			other := filepath.Join(t.TempDir(), "other.raw")
			must(t, "restore", c.deltas[i], other)
			writeFile(t, target+".cbt-state", readFile(t, other+".cbt-state"))
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			want := []int{4}
			if name == "no target" || name == "a directory" {
				want = []int{1, 2, 4}
			}
			for i := range last {
				dir := t.TempDir()
				target := filepath.Join(dir, "target.raw")
				prepare(t, target, i)
				before := listing(t, dir)
				for _, seq := range sequences(2) {
					args := []string{"apply"}
					for _, d := range seq {
						args = append(args, c.deltas[d])
					}
					refused(t, dir, before, want, nil, append(args, target)...)
				}
				refused(t, dir, before, want, readFile(t, c.deltas[i+1]), "apply", "-", target)
			}
		})
	}
}

// TestNamedBase: --base compares the whole target, so only the right one will
// do, and no word of the user's is taken where the content shows otherwise.
func TestNamedBase(t *testing.T) {
	c := disjointChain(t)
	for content := range last + 1 {
		for base := range last + 1 {
			for d := 1; d <= last; d++ {
				dir := t.TempDir()
				target := filepath.Join(dir, "target.raw")
				writeFile(t, target, c.states[content])
				args := []string{"apply", c.deltas[d], target, "--base", c.deltas[base]}
				if content == base && d == base+1 {
					must(t, args...)
					if !bytes.Equal(readFile(t, target), c.states[d]) {
						t.Fatalf("delta %d with --base: not s%d", d, d)
					}
					continue
				}
				refused(t, dir, listing(t, dir), []int{4}, nil, args...)
			}
		}
	}
	dir := t.TempDir()
	target := filepath.Join(dir, "target.raw")
	writeFile(t, target, bytes.Repeat([]byte{0xe5}, len(c.states[0])))
	refused(t, dir, listing(t, dir), []int{4}, nil, "apply", c.deltas[1], target, "--assume-base")
}

// TestMissingDeltas restores the last state with every subset of its chain.
func TestMissingDeltas(t *testing.T) {
	c := disjointChain(t)
	for subset := range 1 << last {
		dir := t.TempDir()
		var names []string
		for i := range last + 1 {
			if i == last || subset&(1<<i) != 0 {
				// Names tell nothing: the points do.
				name := filepath.Join(dir, fmt.Sprintf("%c.cbt", 'z'-byte(i*7%5)-byte(i)))
				writeFile(t, name, readFile(t, c.deltas[i]))
				names = append(names, name)
			}
		}
		target := filepath.Join(dir, "target.raw")
		args := []string{"restore", names[len(names)-1], target}
		if subset != 1<<last-1 {
			refused(t, dir, listing(t, dir), []int{4}, nil, args...)
			continue
		}
		must(t, args...)
		if !bytes.Equal(readFile(t, target), c.states[last]) {
			t.Fatal("restored with all deltas: not the last state")
		}
	}
}

// TestTwins mixes the deltas of images that look alike: one made anew under
// the old name, and two copies of one image that went different ways.
func TestTwins(t *testing.T) {
	dir := t.TempDir()
	image := filepath.Join(dir, "disk.qcow2")
	one := makeChain(t, filepath.Join(dir, "one"), image, 3, "cluster_size=4096", 600<<10, disjoint(t, 1))
	if err := os.Remove(image); err != nil {
		t.Fatal(err)
	}
	two := makeChain(t, filepath.Join(dir, "two"), image, 3, "cluster_size=4096", 600<<10, disjoint(t, 101))
	mix(t, one, two)

	// Both copies know s0; from there on they differ.
	image = filepath.Join(dir, "origin.qcow2")
	makeChain(t, filepath.Join(dir, "origin"), image, 1, "cluster_size=4096", 600<<10, disjoint(t, 1))
	var ways []chain
	for i := range 2 {
		way := diverge(t, filepath.Join(dir, fmt.Sprintf("way%d", i)), image, byte(50*i+10))
		ways = append(ways, way)
	}
	for i, way := range ways {
		other := ways[1-i]
		for state := 1; state < 3; state++ {
			work := t.TempDir()
			target := filepath.Join(work, "target.raw")
			must(t, "restore", way.deltas[state], target)
			before := listing(t, work)
			for d := state + 1; d < 3; d++ {
				refused(t, work, before, []int{4}, nil, "apply", other.deltas[d], target)
			}
		}
	}
}

// diverge copies image with its snapshot s0 and goes on in the copy.
func diverge(t *testing.T, dir, image string, seed byte) chain {
	copied := filepath.Join(dir, "disk.qcow2")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, copied, readFile(t, image))
	c := chain{dir: dir, image: copied, states: [][]byte{nil}}
	d := filepath.Join(dir, "d0.cbt")
	must(t, "diff", "--full", copied+"@s0", "-o", d)
	c.deltas = append(c.deltas, d)
	write := disjoint(t, seed)
	for i := 1; i < 3; i++ {
		grow(t, &c, i, write(i))
	}
	return c
}

// mix applies each delta of a to each state of b and the other way round.
func mix(t *testing.T, a, b chain) {
	for range 2 {
		for state := range a.deltas {
			dir := t.TempDir()
			target := filepath.Join(dir, "target.raw")
			must(t, "restore", a.deltas[state], target)
			before := listing(t, dir)
			for d := 1; d < len(b.deltas); d++ {
				refused(t, dir, before, []int{4}, nil, "apply", b.deltas[d], target)
			}
		}
		a, b = b, a
	}
}
