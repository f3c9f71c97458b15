package base_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"cbt/fuzz/tool"
	"cbt/internal/testtool"
)

// damaged are the exit codes for a delta that is not as it was written: what
// a changed byte says may also be that it belongs elsewhere.
var damaged = []int{1, 3, 4}

// small is a chain whose second delta has data, zeros, checked and unchecked
// blocks in some 3 KB.
func small(t testing.TB) chain {
	dir := t.TempDir()
	return makeChain(t, dir, filepath.Join(dir, "disk.qcow2"), 2, "cluster_size=4096", 200<<10, func(i int) []string {
		return []string{
			fmt.Sprintf("write -q -P %d 0 60000", 65+i),
			fmt.Sprintf("write -q -s %s 81920 1700", noise(t, byte(i), 1700)),
			fmt.Sprintf("write -q -z %d 10000", i*12288),
			fmt.Sprintf("write -q -P 1 %d 1", 150000+i*4096),
		}
	})
}

// bench is a directory in which damaged deltas are tried: the parent beside
// them, a target to apply to, and another to restore over.
type bench struct {
	t      *testing.T
	dir    string
	delta  string
	target string
	before string
}

func newBench(t *testing.T, c chain) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir()}
	b.delta, b.target = filepath.Join(b.dir, "damaged.cbt"), filepath.Join(b.dir, "target.raw")
	writeFile(t, filepath.Join(b.dir, "full.cbt"), readFile(t, c.deltas[0]))
	must(t, "restore", c.deltas[0], b.target)
	writeFile(t, filepath.Join(b.dir, "old.raw"), bytes.Repeat([]byte{0xe5}, 9000))
	b.before = listing(t, b.dir)

	// Undamaged, everything works: what follows is refused for the damage.
	writeFile(t, b.delta, readFile(t, c.deltas[1]))
	must(t, "verify", b.delta)
	must(t, "restore", b.delta, filepath.Join(b.dir, "new.raw"))
	for _, name := range []string{"new.raw", "new.raw.cbt-state"} {
		if err := os.Remove(filepath.Join(b.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	os.Remove(b.delta)
	if now := listing(t, b.dir); now != b.before {
		t.Fatalf("restore left more than a target and its record:\n%s", now)
	}
	return b
}

// try lets every reader of deltas see p.
func (b *bench) try(what string, p []byte) {
	b.t.Helper()
	refuse := func(want []int, stdin []byte, args ...string) {
		exit, stderr := cbt(stdin, args...)
		ok := false
		for _, w := range want {
			ok = ok || exit == w
		}
		if !ok || strings.Contains(stderr, "panic") || strings.TrimSpace(stderr) == "" {
			b.t.Errorf("%s: %s: exit %d: %s", what, args[0], exit, stderr)
		}
	}
	refuse(damaged, p, "apply", "-", b.target)
	refuse(damaged, p, "restore", "-", filepath.Join(b.dir, "new.raw"), "--chain", b.dir)
	if now := listing(b.t, b.dir); now != b.before {
		b.t.Fatalf("%s: reading a pipe wrote something: before:\n%safter:\n%s", what, b.before, now)
	}
	writeFile(b.t, b.delta, p)
	refuse(damaged, nil, "verify", b.delta)
	refuse(damaged, nil, "restore", b.delta, filepath.Join(b.dir, "new.raw"))
	refuse(damaged, nil, "restore", b.delta, filepath.Join(b.dir, "old.raw"), "--in-place")
	refuse(damaged, nil, "apply", b.delta, b.target)
	if err := os.Remove(b.delta); err != nil {
		b.t.Fatal(err)
	}
	if now := listing(b.t, b.dir); now != b.before {
		b.t.Fatalf("%s: something was written: before:\n%safter:\n%s", what, b.before, now)
	}
}

// spread runs f for 0 to n-1 on all processors, each with a bench of its own.
// Without CBT_LONG only every step-th.
func spread(t *testing.T, c chain, n, step int, f func(b *bench, i int)) {
	t.Helper()
	if long {
		step = 1
	}
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		b := newBench(t, c)
		wg.Go(func() {
			for i := w * step; i < n && !t.Failed(); i += workers * step {
				f(b, i)
			}
		})
	}
	wg.Wait()
	t.Logf("%d of %d", (n+step-1)/step, n)
}

func TestEveryBit(t *testing.T) {
	c := small(t)
	whole := readFile(t, c.deltas[1])
	t.Logf("a delta of %d bytes", len(whole))
	spread(t, c, len(whole)*8, 37, func(b *bench, bit int) {
		p := bytes.Clone(whole)
		p[bit/8] ^= 1 << (bit % 8)
		b.try(fmt.Sprintf("bit %d of byte %d flipped", bit%8, bit/8), p)
	})
}

func TestEveryCut(t *testing.T) {
	c := small(t)
	whole := readFile(t, c.deltas[1])
	spread(t, c, len(whole), 11, func(b *bench, n int) {
		b.try(fmt.Sprintf("cut at %d", n), whole[:n])
	})
}

// TestSpoiltBytes: more than a bit, and lengths that matter.
func TestSpoiltBytes(t *testing.T) {
	c := small(t)
	whole := readFile(t, c.deltas[1])
	spread(t, c, len(whole)-8, 29, func(b *bench, at int) {
		for _, spoil := range [][]byte{{0, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff}, {0xff, 0xff, 0xff, 0x7f}, {0, 0, 0, 0, 0, 0, 0, 0x80}} {
			p := bytes.Clone(whole)
			if copy(p[at:], spoil); !bytes.Equal(p, whole) {
				b.try(fmt.Sprintf("%x at byte %d", spoil, at), p)
			}
		}
		p := append(bytes.Clone(whole[:at]), whole[at+1:]...)
		b.try(fmt.Sprintf("byte %d left out", at), p)
		p = append(append(bytes.Clone(whole[:at]), 0x5a), whole[at:]...)
		b.try(fmt.Sprintf("a byte put in at %d", at), p)
	})
}

// TestProcess tries some damage on the real binary.
func TestProcess(t *testing.T) {
	c := small(t)
	testtool.Need(t, "go")
	bin, err := tool.Binary("", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	whole := readFile(t, c.deltas[1])
	dir := t.TempDir()
	target := filepath.Join(dir, "target.raw")
	if r := (tool.Cmd{}).Run(bin, "restore", c.deltas[0], target); r.Failed() {
		t.Fatalf("exit %d: %s", r.Exit, r.Message())
	}
	before := listing(t, dir)
	outside := filepath.Join(t.TempDir(), "damaged.cbt")
	for i := range 25 {
		at := i * len(whole) / 25
		p := bytes.Clone(whole)
		p[at] ^= 0x10
		writeFile(t, outside, p)
		for _, args := range [][]string{
			{"verify", outside},
			{"restore", outside, filepath.Join(dir, "new.raw"), "--chain", c.dir},
			{"apply", outside, target},
			{"apply", "-", target},
		} {
			r := tool.Cmd{Stdin: bytes.NewReader(p)}.Run(bin, args...)
			if r.Exit != 1 && r.Exit != 3 && r.Exit != 4 || bytes.Contains(r.Stderr, []byte("panic")) {
				t.Errorf("byte %d spoilt: %v: exit %d: %s", at, args, r.Exit, r.Message())
			}
		}
		if now := listing(t, dir); now != before {
			t.Fatalf("byte %d spoilt, and something was written: before:\n%safter:\n%s", at, before, now)
		}
	}
	if r := (tool.Cmd{Stdin: bytes.NewReader(whole)}).Run(bin, "apply", "-", target); r.Failed() || !bytes.Equal(readFile(t, target), c.states[1]) {
		t.Errorf("the undamaged delta: exit %d: %s", r.Exit, r.Message())
	}
}
