// Serve measures `cbt serve` against qemu-nbd on the same qcow2 image in the page cache: random reads of 4 KiB with
// 16 in flight, on one connection and on four, and nbdcopy of all of it. Both servers run all the time, each over a
// Unix socket, and are asked in turns by one client; the ratio is the median over the turns. It needs about 1.5 GB of
// disk.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"cbt/fuzz/tool"
)

func main() {
	bin := flag.String("cbt", "", "cbt binary (default: $CBT, else built)")
	dir := flag.String("dir", "", "where the images are made (default: a new temporary directory); what is found there is used again")
	only := flag.String("only", "", "only this kind of image: plain or compressed")
	runs := flag.Int("runs", 9, "turns")
	each := flag.Duration("time", 2*time.Second, "of one turn of random reads")
	size := flag.Int64("size", 1<<30, "bytes of the image")
	flag.Parse()
	if flag.NArg() != 0 || *runs < 1 || *size < 64<<20 || *size%(1<<20) != 0 {
		fmt.Fprintln(os.Stderr, "serve: unexpected arguments")
		os.Exit(2)
	}
	met, err := run(*bin, *dir, *only, *runs, *each, *size)
	if err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
	if !met {
		os.Exit(3)
	}
}

// question is what is measured, and how many times what qemu-nbd gives it has
// to be; 0: not asked.
type question struct {
	name  string
	ratio float64
	ask   func(socket string, turn int) (float64, error)
}

func run(bin, dir, only string, runs int, each time.Duration, size int64) (met bool, err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "cbt-bench-serve-"); err != nil {
			return false, err
		}
		defer os.RemoveAll(dir)
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	if dir, err = filepath.Abs(dir); err != nil { // qemu-nbd wants the whole path of a socket
		return false, err
	}
	if bin, err = tool.Binary(bin, dir); err != nil {
		return false, err
	}
	random := func(connections int) func(string, int) (float64, error) {
		return func(socket string, turn int) (float64, error) {
			return load(socket, size, connections, 16, each, uint64(turn))
		}
	}
	copyAll := func(socket string, _ int) (float64, error) {
		start := time.Now()
		r := tool.Cmd{}.Run("nbdcopy", "nbd+unix:///?socket="+socket, "null:")
		if r.Failed() {
			return 0, fmt.Errorf("nbdcopy: %s", r.Message())
		}
		return float64(size) / (1 << 20) / time.Since(start).Seconds(), nil
	}
	met = true
	for _, kind := range []string{"plain", "compressed"} {
		if only != "" && kind != only {
			continue
		}
		image := filepath.Join(dir, fmt.Sprintf("%s-%d.qcow2", kind, size))
		if err := makeImage(image, size, kind == "compressed"); err != nil {
			return false, err
		}
		ok, err := compare(bin, dir, image, kind, runs, []question{
			{"4 KiB at random, 16 in flight", 1, random(1)},
			{"the same on 4 connections", 1, random(4)},
			{"nbdcopy to null:, MiB/s", 0, copyAll},
		})
		if err != nil {
			return false, err
		}
		met = met && ok
	}
	return met, nil
}

func compare(bin, dir, image, kind string, runs int, questions []question) (met bool, err error) {
	ours, theirs := filepath.Join(dir, "cbt.sock"), filepath.Join(dir, "qemu.sock")
	// What is measured is not the disk.
	if r := (tool.Cmd{Stdout: io.Discard}).Run("cat", image); r.Failed() {
		return false, fmt.Errorf("cat: %s", r.Message())
	}
	for _, c := range []struct {
		socket string
		cmd    *exec.Cmd
	}{
		{ours, exec.Command(bin, "serve", image, "--socket", ours)},
		{theirs, exec.Command("qemu-nbd", "-r", "-t", "-k", theirs, "--shared=16", "-f", "qcow2", image)},
	} {
		stop, err := start(c.cmd, c.socket)
		if err != nil {
			return false, err
		}
		defer stop()
	}
	fmt.Printf("%s qcow2:\n", kind)
	met = true
	for _, q := range questions {
		var us, them, ratios []float64
		for turn := -1; turn < runs; turn++ { // turn -1 fills caches
			a, err := q.ask(ours, turn)
			if err != nil {
				return false, fmt.Errorf("cbt: %w", err)
			}
			b, err := q.ask(theirs, turn)
			if err != nil {
				return false, fmt.Errorf("qemu-nbd: %w", err)
			}
			if turn >= 0 {
				us, them, ratios = append(us, a), append(them, b), append(ratios, a/b)
			}
		}
		ratio, verdict := tool.Median(ratios), ""
		if q.ratio > 0 {
			verdict = "met"
			if ratio < q.ratio {
				met, verdict = false, fmt.Sprintf("MISSED: ratio below %g", q.ratio)
			}
		}
		fmt.Printf("  %-32s cbt %9.0f  qemu-nbd %9.0f  ratio %5.2f  %s\n", q.name+":", tool.Median(us), tool.Median(them), ratio, verdict)
	}
	return met, nil
}

// start starts a server and waits for its socket.
func start(cmd *exec.Cmd, socket string) (stop func(), err error) {
	os.Remove(socket)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// What they say is that a client went without waiting for its replies.
	stop = func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	}
	for range 200 {
		if _, err := os.Stat(socket); err == nil {
			return stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	return nil, fmt.Errorf("%s does not listen", cmd.Path)
}

// makeImage makes an image of which each block of 4 KiB begins with its offset,
// and a quarter is random.
func makeImage(image string, size int64, compressed bool) (err error) {
	if _, err := os.Stat(image); err == nil {
		return nil
	}
	raw := image + ".raw"
	defer os.Remove(raw)
	f, err := os.Create(raw)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	rng := rand.NewChaCha8([32]byte{1})
	var block [4096]byte
	for off := int64(0); off < size; off += int64(len(block)) {
		io.ReadFull(rng, block[:1024])
		binary.BigEndian.PutUint64(block[:], uint64(off))
		for i := 1024; i < len(block); i++ {
			block[i] = byte(i) | 1
		}
		w.Write(block[:])
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		return err
	}
	args := []string{"convert", "-f", "raw", "-O", "qcow2"}
	if compressed {
		args = append(args, "-c")
	}
	r := tool.Cmd{}.Run("qemu-img", append(args, raw, image)...)
	if r.Failed() {
		return fmt.Errorf("qemu-img: %s", r.Message())
	}
	return nil
}
