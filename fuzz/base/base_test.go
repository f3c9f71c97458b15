// Package base_test shows that cbt takes no wrong base and no damaged delta:
// every combination that does not fit is refused, and nothing is written.
// The commands run in process, which allows tens of thousands of them;
// CBT_LONG=1 runs all, without it a sample runs.
package base_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/cmd/cbt/cli"
	"cbt/internal/testtool"
)

var long = os.Getenv("CBT_LONG") == "1"

// cbt runs one command line in process.
func cbt(stdin []byte, args ...string) (exit int, stderr string) {
	var out, errs bytes.Buffer
	env := cli.Env{Stdin: bytes.NewReader(stdin), Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}
	exit = cli.Run(context.Background(), env, args)
	return exit, errs.String()
}

// must runs a command line that has to work.
func must(t testing.TB, args ...string) {
	t.Helper()
	if exit, stderr := cbt(nil, args...); exit != 0 {
		t.Fatalf("cbt %s: exit %d: %s", strings.Join(args, " "), exit, stderr)
	}
}

// chain is an image with snapshots s0, s1, ..., their ground truth, a full
// delta of s0 and one delta to each later snapshot. Deltas[0] is the full one.
type chain struct {
	dir    string
	image  string
	states [][]byte
	deltas []string
}

// makeChain lets write change the image before each snapshot; its arguments
// are qemu-io commands.
func makeChain(t testing.TB, dir, image string, snapshots int, options string, size int, write func(i int) []string) chain {
	t.Helper()
	testtool.Need(t, "qemu-img")
	testtool.Need(t, "qemu-io")
	for _, d := range []string{dir, filepath.Dir(image)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := chain{dir: dir, image: image}
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, fmt.Sprint(size))
	for i := range snapshots {
		grow(t, &c, i, write(i))
	}
	return c
}

// grow runs qemu-io commands, takes snapshot i and makes the delta to it.
func grow(t testing.TB, c *chain, i int, writes []string) {
	t.Helper()
	args := []string{"-f", "qcow2", "-d", "unmap"}
	for _, w := range writes {
		args = append(args, "-c", w)
	}
	testtool.Run(t, "qemu-io", append(args, c.image)...)
	name := fmt.Sprintf("s%d", i)
	testtool.Run(t, "qemu-img", "snapshot", "-c", name, c.image)
	raw := filepath.Join(c.dir, name+".raw")
	testtool.Run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", c.image, raw)
	c.states = append(c.states, readFile(t, raw))
	d := filepath.Join(c.dir, fmt.Sprintf("d%d.cbt", i))
	if i == 0 {
		must(t, "diff", "--full", c.image+"@"+name, "-o", d)
	} else {
		must(t, "diff", fmt.Sprintf("%s@s%d", c.image, i-1), c.image+"@"+name, "-o", d)
	}
	c.deltas = append(c.deltas, d)
}

// noise writes a file of n random bytes for `write -s`.
func noise(t testing.TB, seed byte, n int) string {
	t.Helper()
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(p)
	name := filepath.Join(t.TempDir(), "noise")
	if err := os.WriteFile(name, p, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	p, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func writeFile(t testing.TB, name string, p []byte) {
	t.Helper()
	if err := os.WriteFile(name, p, 0o644); err != nil {
		t.Fatal(err)
	}
}

// listing says what a directory holds: every name with mode, size, time and
// hash.
func listing(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %v %d %v", e.Name(), fi.Mode(), fi.Size(), fi.ModTime())
		if fi.Mode().IsRegular() {
			fmt.Fprintf(&b, " %x", sha256.Sum256(readFile(t, filepath.Join(dir, e.Name()))))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// refused demands an exit code out of want, a message of one line, and that
// nothing in dir changed.
func refused(t *testing.T, dir, before string, want []int, stdin []byte, args ...string) {
	t.Helper()
	exit, stderr := cbt(stdin, args...)
	ok := false
	for _, w := range want {
		ok = ok || exit == w
	}
	if !ok || strings.Contains(stderr, "panic") || strings.TrimSpace(stderr) == "" {
		t.Errorf("cbt %s: exit %d, want one of %v: %s", strings.Join(args, " "), exit, want, stderr)
	}
	if after := listing(t, dir); after != before {
		t.Fatalf("cbt %s: exit %d, and something was written: before:\n%safter:\n%s", strings.Join(args, " "), exit, before, after)
	}
}
