// Mount measures reading a mounted image in order, 1 MiB at a time, against qemu-nbd and nbdcopy on the same
// file: a plain qcow2 image and a compressed one. Both run in turns, with the image in the page cache and nothing
// of what the mount shows; the ratio is the median over the turns. It needs root, /dev/fuse, and a directory with
// room for three times the size.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cbt/fuzz/tool"
)

const wanted = 0.7

func main() {
	dir := flag.String("dir", "", "where the images are made (default: a new temporary directory); what is found there is used again")
	runs := flag.Int("runs", 9, "turns")
	size := flag.Int64("size", 1024, "size of the image in MiB")
	binary := flag.String("cbt", "", "the binary to measure (default: $CBT, else it is built)")
	flag.Parse()
	if flag.NArg() != 0 || *runs < 1 || *size < 16 {
		fmt.Fprintln(os.Stderr, "mount: unexpected arguments")
		os.Exit(2)
	}
	met, err := run(*dir, *binary, *runs, *size)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mount:", err)
		os.Exit(1)
	}
	if !met {
		os.Exit(3)
	}
}

func run(dir, binary string, runs int, size int64) (met bool, err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "cbt-bench-mount-"); err != nil {
			return false, err
		}
		defer os.RemoveAll(dir)
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	if binary, err = tool.Binary(binary, dir); err != nil {
		return false, err
	}
	raw := filepath.Join(dir, fmt.Sprintf("content-%d.raw", size))
	if err := makeContent(raw, size); err != nil {
		return false, err
	}
	met = true
	for _, kind := range []struct {
		name string
		args []string
	}{{"plain", nil}, {"compressed", []string{"-c"}}} {
		image := filepath.Join(dir, fmt.Sprintf("%s-%d.qcow2", kind.name, size))
		if _, err := os.Stat(image); err != nil {
			if err := must("qemu-img", append(append([]string{"convert", "-O", "qcow2"}, kind.args...), raw, image)...); err != nil {
				return false, err
			}
		}
		b := &bench{binary: binary, image: image, size: size << 20, socket: filepath.Join(dir, "socket"), mnt: filepath.Join(dir, "mnt")}
		var ours, theirs []time.Duration
		var ratios []float64
		for turn := -1; turn < runs; turn++ { // turn -1 fills the page cache
			q, err := b.nbd()
			if err != nil {
				return false, err
			}
			c, err := b.cbt()
			if err != nil {
				return false, err
			}
			if turn >= 0 {
				ours, theirs = append(ours, c), append(theirs, q)
				ratios = append(ratios, q.Seconds()/c.Seconds())
			}
		}
		ratio, verdict := tool.Median(ratios), "met"
		if ratio < wanted {
			met, verdict = false, fmt.Sprintf("MISSED: below %g", wanted)
		}
		rate := func(d time.Duration) float64 { return float64(size) / d.Seconds() }
		fmt.Printf("%-11s cbt mount %6.0f MiB/s, qemu-nbd and nbdcopy %6.0f MiB/s, ratio %.2f (median of %d)  %s\n", kind.name+":",
			rate(tool.Median(ours)), rate(tool.Median(theirs)), ratio, runs, verdict)
	}
	return met, nil
}

// makeContent writes what compresses to about a half.
func makeContent(path string, size int64) error {
	if info, err := os.Stat(path); err == nil && info.Size() == size<<20 {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := rand.NewChaCha8([32]byte{1})
	p := make([]byte, 1<<20)
	for range size {
		for i := 0; i < len(p); i += 8192 {
			_, _ = r.Read(p[i : i+4096]) // it never fails
		}
		if _, err := f.Write(p); err != nil {
			return err
		}
	}
	return f.Close()
}

func must(name string, args ...string) error {
	if r := (tool.Cmd{}).Run(name, args...); r.Failed() {
		return fmt.Errorf("%s: exit %d: %s", name, r.Exit, r.Message())
	}
	return nil
}

type bench struct {
	binary, image, socket, mnt string
	size                       int64
}

// nbd is how long nbdcopy takes.
func (b *bench) nbd() (took time.Duration, err error) {
	pidFile := b.socket + ".pid"
	if err := must("qemu-nbd", "--read-only", "--fork", "--persistent", "--pid-file", pidFile, "-f", "qcow2", "-k", b.socket, b.image); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, err
	}
	server, err := os.FindProcess(pid)
	if err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, server.Signal(syscall.SIGTERM))
		for server.Signal(syscall.Signal(0)) == nil {
			time.Sleep(10 * time.Millisecond)
		}
	}()
	start := time.Now()
	err = must("nbdcopy", "nbd+unix:///?socket="+b.socket, "null:")
	return time.Since(start), err
}

// cbt is how long reading the mounted image takes.
func (b *bench) cbt() (took time.Duration, err error) {
	if err := os.MkdirAll(b.mnt, 0o700); err != nil {
		return 0, err
	}
	if err := must(b.binary, "mount", b.image, b.mnt); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, must(b.binary, "umount", b.mnt)) }()
	f, err := os.Open(filepath.Join(b.mnt, "active", "disk.raw"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	p := make([]byte, 1<<20)
	start, n := time.Now(), int64(0)
	for {
		k, err := f.Read(p)
		n += int64(k)
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if n != b.size {
		return 0, fmt.Errorf("read %d bytes of %d", n, b.size)
	}
	return time.Since(start), nil
}
