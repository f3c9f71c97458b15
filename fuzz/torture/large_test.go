package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/fuzz/tool"
	"cbt/internal/testtool"
)

// bench is a directory with a binary and an image for the tests below, whose
// images are too large for histories. CBT_LONG=1 runs those that take long.
type bench struct {
	t     *testing.T
	dir   string
	bin   string
	image string
}

func newBench(t *testing.T) *bench {
	testtool.Need(t, "qemu-img")
	testtool.Need(t, "qemu-io")
	testtool.Need(t, "go")
	b := &bench{t: t, dir: t.TempDir()}
	b.image = filepath.Join(b.dir, "disk.qcow2")
	var err error
	if b.bin, err = tool.Binary("", b.dir); err != nil {
		t.Fatal(err)
	}
	return b
}

func long(t *testing.T) {
	if os.Getenv("CBT_LONG") != "1" {
		t.Skip("takes long: CBT_LONG=1 runs it")
	}
}

func (b *bench) cbt(args ...string) {
	b.t.Helper()
	if r := (tool.Cmd{Dir: b.dir}).Run(b.bin, args...); r.Failed() {
		b.t.Fatalf("cbt %s: exit %d: %s", strings.Join(args, " "), r.Exit, r.Message())
	}
}

func (b *bench) io(commands ...string) {
	b.t.Helper()
	args := []string{"-f", "qcow2", "-t", "unsafe", "-d", "unmap"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	testtool.Run(b.t, "qemu-io", append(args, b.image)...)
}

// freeze takes a snapshot and its ground truth.
func (b *bench) freeze(name string) {
	b.t.Helper()
	testtool.Run(b.t, "qemu-img", "snapshot", "-c", name, b.image)
	testtool.Run(b.t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", b.image, filepath.Join(b.dir, name+".raw"))
}

// holds compares a target with a ground truth; qemu-img passes over holes.
func (b *bench) holds(target, truth string) {
	b.t.Helper()
	testtool.Run(b.t, "qemu-img", "compare", "-s", "-f", "raw", "-F", "raw", filepath.Join(b.dir, target), filepath.Join(b.dir, truth+".raw"))
}

// TestLargeDisks has data at the places where 32 bits end, at the last byte,
// and where a disk of terabytes grew and shrank: by little, because qemu-img
// looks at every cluster that it cuts off.
func TestLargeDisks(t *testing.T) {
	for _, c := range []struct {
		cluster string
		size    int64
	}{
		{"64k", 5<<40 + 512},
		{"2M", 15<<40 + 3<<20},
		{"512", 9<<30 - 512},
		{"16k,extended_l2=on", 3<<40 + 1536},
	} {
		t.Run(c.cluster, func(t *testing.T) {
			b := newBench(t)
			testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size="+c.cluster, b.image, fmt.Sprint(c.size))
			places := []int64{0, 1<<31 - 2048, 1<<32 - 2048, 1<<32 + 1<<31, c.size / 3, c.size - 5000}
			write := func(pattern int, places ...int64) {
				var commands []string
				for _, p := range places {
					commands = append(commands, fmt.Sprintf("write -q -P %d %d 5000", pattern, p))
				}
				b.io(commands...)
			}
			write(1, places...)
			b.freeze("s0")
			write(2, places[1], places[5])
			b.io(fmt.Sprintf("discard -q %d 70000", places[2]), fmt.Sprintf("write -q -z -u %d 5000", places[4]))
			b.freeze("s1")
			testtool.Run(t, "qemu-img", "resize", "-q", "-f", "qcow2", "--shrink", b.image, fmt.Sprint(c.size-4<<20))
			write(3, c.size-4<<20-5000)
			b.freeze("s2")
			testtool.Run(t, "qemu-img", "resize", "-q", "-f", "qcow2", b.image, fmt.Sprint(c.size+1<<20))
			write(4, c.size)
			b.freeze("s3")
			b.cbt("diff", "--full", b.image+"@s0", "-o", "d0.cbt")
			for i := 1; i < 4; i++ {
				b.cbt("diff", fmt.Sprintf("%s@s%d", b.image, i-1), fmt.Sprintf("%s@s%d", b.image, i), "-o", fmt.Sprintf("d%d.cbt", i))
			}
			b.cbt("diff", b.image+"@s3", b.image+"@s0", "-o", "back.cbt")
			b.cbt("verify", ".")
			b.cbt("restore", "d0.cbt", "target.img")
			b.holds("target.img", "s0")
			for i := 1; i < 4; i++ {
				b.cbt("apply", fmt.Sprintf("d%d.cbt", i), "target.img")
				b.holds("target.img", fmt.Sprintf("s%d", i))
				fresh := fmt.Sprintf("fresh%d.img", i)
				b.cbt("restore", fmt.Sprintf("d%d.cbt", i), fresh)
				b.holds(fresh, fmt.Sprintf("s%d", i))
			}
			b.cbt("apply", "back.cbt", "target.img")
			b.holds("target.img", "s0")
			b.cbt("apply", "d1.cbt", "d2.cbt", "d3.cbt", "target.img")
			b.holds("target.img", "s3")
		})
	}
}

// TestManyChunks makes deltas whose index needs a second leaf: more than
// 1,024 chunks of 1 MiB.
func TestManyChunks(t *testing.T) {
	long(t)
	b := newBench(t)
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", b.image, "2100M")
	b.io("write -q -P 1 0 1050M", "write -q -P 2 1050M 1050M")
	b.freeze("s0")
	b.io("write -q -P 3 0 1050M", "write -q -P 1 1050M 20M", "write -q -P 2 1070M 20M", "write -q -P 4 1090M 10M")
	b.freeze("s1")
	b.cbt("diff", "--full", b.image+"@s0", "-o", "d0.cbt")
	b.cbt("diff", b.image+"@s0", b.image+"@s1", "-o", "d1.cbt")
	b.cbt("verify", ".")
	b.cbt("restore", "d0.cbt", "target.img")
	b.holds("target.img", "s0")
	b.cbt("apply", "d1.cbt", "target.img")
	b.holds("target.img", "s1")
	b.cbt("restore", "d1.cbt", "fresh.img")
	b.holds("fresh.img", "s1")
	b.cbt("verify", "--against", "fresh.img", "d1.cbt")
}

// TestLongChain restores and applies a chain of 400 deltas.
func TestLongChain(t *testing.T) {
	long(t)
	const n = 400
	b := newBench(t)
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", b.image, "1M")
	all := []string{"apply"}
	for i := range n {
		b.io(fmt.Sprintf("write -q -P %d %d 5000", 1+i%255, i*7919%(1<<20-5000)))
		b.freeze(fmt.Sprintf("s%d", i))
		d := fmt.Sprintf("d%d.cbt", i)
		if i == 0 {
			b.cbt("diff", "--full", b.image+"@s0", "-o", d)
			continue
		}
		b.cbt("diff", fmt.Sprintf("%s@s%d", b.image, i-1), fmt.Sprintf("%s@s%d", b.image, i), "-o", d)
		all = append(all, d)
	}
	b.cbt("verify", ".")
	for _, i := range []int{0, 1, n / 2, n - 1} {
		target := fmt.Sprintf("fresh%d.img", i)
		b.cbt("restore", fmt.Sprintf("d%d.cbt", i), target)
		b.holds(target, fmt.Sprintf("s%d", i))
	}
	b.cbt(append(all, "fresh0.img")...)
	b.holds("fresh0.img", fmt.Sprintf("s%d", n-1))
}
