package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"

	"cbt/fuzz/tool"
)

const (
	imageSize = 1 << 40
	cluster   = 65536
	changed   = 2000
)

// makeImage makes the image with the four snapshots that the questions are
// about. All clusters are mapped, so the tables are as large as they get:
// 2,048 L2 tables of 64 KiB.
func makeImage(image string) error {
	if _, err := os.Stat(image); err == nil {
		return nil
	}
	part := image + ".part"
	os.Remove(part)
	rng := rand.New(rand.NewPCG(1, 2))
	scattered := []string{"-f", "qcow2", "-t", "unsafe"}
	for range changed {
		off := rng.Int64N(imageSize/cluster) * cluster
		scattered = append(scattered, "-c", fmt.Sprintf("write -q -P 3 %d %d", off, cluster))
	}
	for _, c := range [][]string{
		{"qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", part, strconv.Itoa(imageSize)},
		{"qemu-img", "snapshot", "-c", "s0", part},
		{"qemu-img", "snapshot", "-c", "s1", part},
		{"qemu-io", "-f", "qcow2", "-t", "unsafe", "-c", fmt.Sprintf("write -q -P 2 %d %d", int64(imageSize/2), changed*cluster), part},
		{"qemu-img", "snapshot", "-c", "s2", part},
		append([]string{"qemu-io"}, append(scattered, part)...),
		{"qemu-img", "snapshot", "-c", "s3", part},
	} {
		if r := (tool.Cmd{}).Run(c[0], c[1:]...); r.Failed() {
			return fmt.Errorf("%s %s: %s%s", c[0], c[1], r.Message(), r.Stdout)
		}
	}
	return os.Rename(part, image)
}

var readFigure = regexp.MustCompile(`(?i)([0-9]+) bytes read|read ([0-9]+) bytes`)

// bytesRead finds in what -v says how much the source files were read.
func bytesRead(stderr []byte) (int64, error) {
	m := readFigure.FindSubmatch(stderr)
	if m == nil {
		return 0, fmt.Errorf("cbt diff -v does not say how many bytes it read: %q", stderr)
	}
	return strconv.ParseInt(string(m[1])+string(m[2]), 10, 64)
}
