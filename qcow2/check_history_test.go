package qcow2_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"cbt/internal/testtool"
	"cbt/qcow2"
)

// envCount returns n, or the number that the environment variable gives.
func envCount(t *testing.T, name string, n int) int {
	if s := os.Getenv(name); s != "" {
		v, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return v
	}
	return n
}

// qemuCheck is the output of qemu-img check --output=json.
type qemuCheck struct {
	ImageEnd    int64 `json:"image-end-offset"`
	CheckErrors int64 `json:"check-errors"`
	Corruptions int64
	Leaks       int64
	Total       int64 `json:"total-clusters"`
	Allocated   int64 `json:"allocated-clusters"`
	Fragmented  int64 `json:"fragmented-clusters"`
	Compressed  int64 `json:"compressed-clusters"`

	Exit int    // 0 clean, 1 not checked, 2 corruption, 3 leaks
	Text string // what it printed on stderr
}

func runQEMUCheck(t *testing.T, path string) qemuCheck {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, testtool.Need(t, "qemu-img"), "check", "-f", "qcow2", "--output=json", path)
	cmd.Dir = filepath.Dir(path) // where QEMU looks for a data file
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	q := qemuCheck{Text: errOut.String()}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		q.Exit = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &q); err != nil {
			t.Fatalf("%v: %s", err, out.String())
		}
	}
	return q
}

// checkFile runs our check.
func checkFile(t *testing.T, path string) (qcow2.CheckStats, []qcow2.Fault, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var faults []qcow2.Fault
	stats, err := qcow2.Check(context.Background(), f, st.Size(), func(f qcow2.Fault) { faults = append(faults, f) })
	return stats, faults, err
}

// history is an image made by qemu-img and qemu-io.
type history struct {
	t        *testing.T
	r        *rand.Rand
	dir      string
	path     string
	options  string
	cluster  int64
	size     int64
	v2       bool
	extended bool
	dataFile bool
	oneBit   bool // refcounts leave no room for snapshots
	wide     bool // refcounts too wide to overflow
	names    []string
	bitmaps  []string
	log      []string
}

func newHistory(t *testing.T, r *rand.Rand, dir string) *history {
	h := &history{t: t, r: r, dir: dir, path: filepath.Join(dir, "image.qcow2")}
	pick := func(list ...int64) int64 { return list[r.IntN(len(list))] }
	h.cluster = pick(512, 512, 1024, 4096, 16384, 65536)
	h.size = 512 * (1 + r.Int64N(64*min(h.cluster, 8192)/512*8))
	order := r.IntN(7)
	switch r.IntN(8) {
	case 0:
		h.v2, order = true, 4
		h.options = "compat=0.10"
	case 1, 2:
		h.extended, h.cluster = true, pick(16384, 65536)
		h.options = "compat=1.1,extended_l2=on"
	case 3:
		h.dataFile = true
		h.options = "compat=1.1,data_file=" + filepath.Join(dir, "image.data")
		if r.IntN(2) == 0 {
			h.options += ",data_file_raw=on"
		}
	default:
		h.options = "compat=1.1"
		if r.IntN(3) == 0 {
			h.options += ",lazy_refcounts=on"
		}
		if r.IntN(3) == 0 {
			h.options += ",compression_type=zstd"
		}
	}
	h.oneBit, h.wide = order == 0, order > 3
	if !h.v2 {
		if h.dataFile && order < 4 {
			order = 4
		}
		h.options += fmt.Sprintf(",refcount_bits=%d", 1<<order)
	}
	h.options += fmt.Sprintf(",cluster_size=%d", h.cluster)
	if r.IntN(5) == 0 {
		h.options += ",preallocation=" + []string{"metadata", "falloc", "full"}[r.IntN(3)]
	}
	h.qemuImg("create", "-q", "-f", "qcow2", "-o", h.options, h.path, fmt.Sprint(h.size))
	return h
}

// try runs a tool and reports whether it succeeded: the tools refuse some of the requests.
func (h *history) try(tool string, args ...string) bool {
	h.log = append(h.log, fmt.Sprintf("%s %q", tool, args))
	_, err := testtool.Try(h.t, tool, args...)
	return err == nil
}

func (h *history) qemuImg(args ...string) {
	h.t.Helper()
	if !h.try("qemu-img", args...) {
		h.t.Fatalf("failed: %s", h.log)
	}
}

// write runs a few random writes, zeros and discards in one qemu-io.
func (h *history) write() {
	r := h.r
	args := []string{"-f", "qcow2", "-d", "unmap"}
	for range 1 + r.IntN(8) {
		off := r.Int64N(h.size/512) * 512
		n := min(h.size-off, 512*(1+r.Int64N(1+4*h.cluster/512)))
		whole := off / h.cluster * h.cluster
		var c string
		switch r.IntN(8) {
		case 0, 1, 2:
			c = fmt.Sprintf("write -P %d %d %d", r.IntN(256), off, n)
		case 3:
			c = fmt.Sprintf("write -z %d %d", off, n)
		case 4:
			c = fmt.Sprintf("write -z -u %d %d", off, n)
		case 5:
			c = fmt.Sprintf("discard %d %d", whole, min(h.size-whole, (1+r.Int64N(4))*h.cluster))
		default:
			if h.dataFile {
				continue
			}
			c = fmt.Sprintf("write -c -P %d %d %d", r.IntN(256), whole, min(h.size-whole, h.cluster*(1+r.Int64N(3))))
		}
		args = append(args, "-c", c)
	}
	h.try("qemu-io", append(args, h.path)...)
}

func (h *history) step() {
	r := h.r
	switch r.IntN(12) {
	case 0, 1:
		if h.dataFile || h.oneBit {
			return
		}
		name := fmt.Sprintf("s%d", len(h.log))
		if h.try("qemu-img", "snapshot", "-c", name, h.path) {
			h.names = append(h.names, name)
		}
	case 2:
		if len(h.names) > 1 {
			i := r.IntN(len(h.names))
			h.try("qemu-img", "snapshot", "-d", h.names[i], h.path)
			h.names = append(h.names[:i], h.names[i+1:]...)
		}
	case 3:
		if len(h.names) > 0 && len(h.bitmaps) == 0 && h.try("qemu-img", "snapshot", "-a", h.names[r.IntN(len(h.names))], h.path) {
			h.size = imageSize(h.t, h.path)
		}
	case 4:
		size := 512 * (1 + r.Int64N(2*h.size/512))
		if !h.v2 && h.try("qemu-img", "resize", "-f", "qcow2", "--shrink", h.path, fmt.Sprint(size)) {
			h.size = size
		}
	case 5:
		if name := fmt.Sprintf("b%d", len(h.log)); !h.v2 &&
			h.try("qemu-img", "bitmap", "--add", "-g", fmt.Sprint(512<<r.IntN(8)), h.path, name) {
			h.bitmaps = append(h.bitmaps, name)
		}
	case 6:
		if len(h.bitmaps) > 0 {
			i := r.IntN(len(h.bitmaps))
			what := []string{"--disable", "--enable", "--clear", "--remove"}[r.IntN(4)]
			if h.try("qemu-img", "bitmap", what, h.path, h.bitmaps[i]) && what == "--remove" {
				h.bitmaps = append(h.bitmaps[:i], h.bitmaps[i+1:]...)
			}
		}
	default:
		h.write()
	}
}

func imageSize(t *testing.T, path string) int64 {
	t.Helper()
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal([]byte(testtool.Run(t, "qemu-img", "info", "--output=json", path)), &info); err != nil {
		t.Fatal(err)
	}
	return info.Size
}

// Images that the real tools leave are judged and counted as qemu-img does it. They are clean,
// except with narrow refcounts: a write or a snapshot that would overflow one fails half-way and
// leaves leaks.
func TestCheckHistories(t *testing.T) {
	testtool.Need(t, "qemu-io")
	n := envCount(t, "CBT_CHECK_HISTORIES", 40)
	clean := 0
	for seed := range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHistory(t, rand.New(rand.NewPCG(uint64(seed), 7)), t.TempDir())
			for range 4 + h.r.IntN(12) {
				h.step()
			}
			q := runQEMUCheck(t, h.path)
			stats, faults, err := checkFile(t, h.path)
			if err != nil {
				t.Fatal(err)
			}
			if q.Exit == 0 {
				clean++
			} else if h.wide {
				t.Errorf("qemu-img: %s\n%s", q.Text, h.log)
			}
			got := [7]int64{stats.Corruptions, stats.Leaks, stats.ImageEnd, stats.Total, stats.Allocated, stats.Fragmented, stats.Compressed}
			if want := [7]int64{q.Corruptions, q.Leaks, q.ImageEnd, q.Total, q.Allocated, q.Fragmented, q.Compressed}; got != want {
				t.Errorf("corruptions, leaks, end, total, allocated, fragmented, compressed: %d, qemu-img says %d\n%v\n%s%s", got, want, faults, q.Text, h.log)
			}
			if int(stats.Snapshots) != len(h.names) || int(stats.Bitmaps) != len(h.bitmaps) {
				t.Errorf("%d snapshots and %d bitmaps of %d and %d", stats.Snapshots, stats.Bitmaps, len(h.names), len(h.bitmaps))
			}
		})
	}
	if t.Logf("%d of %d histories end clean", clean, n); clean < n*3/4 {
		t.Errorf("only %d of %d histories end clean", clean, n)
	}
}
