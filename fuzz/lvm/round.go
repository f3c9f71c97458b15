package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cbt/fuzz/tool"
	"cbt/internal/testvm"
)

// round is one machine with one history.
type round struct {
	cfg         config
	seed        uint64
	rng         *rand.Rand
	dir         string // log, disks, truth/
	log         *os.File
	vm          *testvm.Machine
	counts      tool.Counts
	comparisons int
	problems    []string
	broken      bool // the machine or the history cannot go on

	group    string
	extent   int64 // bytes
	chunk    int64 // of the pool, bytes
	mirrored bool  // the thick volume is
	pvs      []pv
	volumes  []*volume
	taken    int // names given out
	step     int
	took     time.Duration      // by a diff that is to be interrupted
	ids      map[string]string  // of the devices in the pool, by name
	fulls    map[*volume]string // full deltas that were made live
}

// pv is a physical volume: a disk of the machine and a file here.
type pv struct {
	path, format string
	partition    bool // it is a partition of that disk
	dev          string
}

func (p pv) kind() string {
	if p.partition {
		return "partition in " + p.format
	}
	return p.format
}

const (
	pvSize      = 400 << 20
	patternSize = 8 << 20
	scratchSize = 1 << 30
)

func newRound(cfg config, seed uint64) *round {
	return &round{cfg: cfg, seed: seed, rng: rand.New(rand.NewPCG(seed, 0x6c766d)), counts: tool.Counts{}, group: "vg", fulls: map[*volume]string{}}
}

// history makes a history and checks all of it.
func (r *round) history() {
	if !r.open("h", 0) {
		return
	}
	defer r.close()
	r.build()
	for r.step = 1; r.step <= r.cfg.steps && !r.broken; r.step++ {
		r.oneStep()
		r.readAll()
		if !r.cfg.dry && !r.broken {
			r.live()
		}
	}
	if !r.broken {
		r.readFrozen()
		r.readIDs()
	}
	if !r.broken {
		r.off()
	}
	if !r.cfg.dry && !r.broken {
		r.outside()
	}
}

// open makes the directory and boots a machine with the disks pv..., a disk of
// patterns and one to carry bytes out. If iops is not 0, there are two pv and
// the second is so slow.
func (r *round) open(kind string, iops int) bool {
	r.dir = filepath.Join(r.cfg.dir, fmt.Sprintf("%s%d", kind, r.seed))
	if err := os.MkdirAll(r.path("truth"), 0o755); err != nil {
		r.fault("%v", err)
		return false
	}
	var err error
	if r.log, err = os.Create(r.path("log")); err != nil {
		r.fault("%v", err)
		return false
	}
	disks := []testvm.Disk{{Path: r.path("scratch")}, {Path: r.path("patterns"), ReadOnly: true}}
	pattern := make([]byte, patternSize)
	src := rand.NewChaCha8([32]byte{byte(r.seed), byte(r.seed >> 8)})
	_, _ = src.Read(pattern)
	clear(pattern[:patternSize/8]) // written zeros are data too
	if err := os.WriteFile(r.path("patterns"), pattern, 0o644); err != nil {
		r.fault("%v", err)
		return false
	}
	if err := makeDisk(disks[0].Path, "raw", scratchSize, false); err != nil {
		r.fault("%v", err)
		return false
	}
	n := 1 + r.rng.IntN(3)
	if iops > 0 {
		n = 2
	}
	for i := range n {
		p := pv{format: pick(r.rng, "raw", "raw", "qcow2"), partition: iops == 0 && r.chance(3), dev: "/dev/vd" + string(rune('c'+i))}
		p.path = r.path(fmt.Sprintf("pv%d.%s", i, map[string]string{"raw": "img", "qcow2": "qcow2"}[p.format]))
		if err := makeDisk(p.path, p.format, pvSize, p.partition); err != nil {
			r.fault("%v", err)
			return false
		}
		if p.partition {
			p.dev += "1"
		}
		r.counts["physical volumes, "+p.kind()]++
		r.pvs = append(r.pvs, p)
		disks = append(disks, testvm.Disk{Path: p.path, Format: p.format, IOPS: iops * i})
	}
	opt := testvm.Options{Disks: disks}
	if !r.cfg.dry {
		opt.Files = map[string]string{"/bin/cbt": r.cfg.cbt}
	}
	if r.vm, err = testvm.Boot(opt); err != nil {
		r.fault("%v", err)
		return false
	}
	return true
}

// close ends the machine and removes what a good history left.
func (r *round) close() {
	r.vm.Kill()
	r.log.Close()
	if len(r.problems) == 0 && !r.cfg.keep {
		os.RemoveAll(r.dir)
		return
	}
	_ = os.WriteFile(r.path("console"), []byte(r.vm.Console()), 0o644)
}

func (r *round) path(name string) string { return filepath.Join(r.dir, name) }

func (r *round) logf(format string, args ...any) {
	line := fmt.Sprintf("%3d %s\n", r.step, fmt.Sprintf(format, args...))
	if r.log != nil {
		_, _ = io.WriteString(r.log, line)
	}
	if r.cfg.verbose {
		fmt.Fprint(os.Stderr, line)
	}
}

// problem is a difference between cbt and the kernel.
func (r *round) problem(format string, args ...any) {
	s := fmt.Sprintf("step %d: ", r.step) + fmt.Sprintf(format, args...)
	r.logf("PROBLEM %s", s)
	r.problems = append(r.problems, s)
}

// fault ends the history.
func (r *round) fault(format string, args ...any) {
	r.problem(format, args...)
	r.broken = true
}

// sh runs a script that has to succeed.
func (r *round) sh(script string) string {
	r.logf("%s", strings.TrimSpace(script))
	return r.quiet(script)
}

// quiet is sh without a line in the log.
func (r *round) quiet(script string) string {
	res := r.exec(script)
	if res.Exit != 0 && !r.broken {
		r.fault("%s: %v", script, res)
	}
	return string(res.Stdout)
}

// try runs a script that may fail.
func (r *round) try(script string) testvm.Result {
	r.logf("%s", strings.TrimSpace(script))
	return r.exec(script)
}

// exec runs a script in the machine. "w LV from to count" in it copies bytes
// from the disk of patterns, "out LV at" a volume to the scratch disk, "carry
// FILE" a file to its beginning.
func (r *round) exec(script string) testvm.Result {
	if r.broken {
		return testvm.Result{Exit: -1}
	}
	res, err := r.vm.Exec(testvm.Command{Script: scriptHead + script, Timeout: 3 * time.Minute})
	if err != nil {
		r.fault("%s: %v", script, err)
	}
	if res.Exit != 0 {
		r.logf("  %v", res)
	}
	return res
}

const scriptHead = `set -e
w() { dd if=/dev/vdb of=$1 bs=64k skip=$2 seek=$3 count=$4 iflag=skip_bytes,count_bytes,direct oflag=seek_bytes,direct conv=notrunc 2>/tmp/dd || { cat /tmp/dd >&2; return 1; }; }
out() { dd if=/dev/vg/$1 of=/dev/vda bs=1M seek=$2 iflag=direct oflag=direct conv=notrunc 2>/tmp/dd && echo $1 $(blockdev --getsize64 /dev/vg/$1) || echo $1 lost; }
carry() { dd if=$1 of=/dev/vda bs=1M oflag=direct conv=notrunc 2>/dev/null && stat -c %s $1; rm -f $1; }
`

// makeDisk makes an empty disk, or one that is one partition.
func makeDisk(path, format string, size int64, partition bool) error {
	raw := path
	if format != "raw" {
		raw += ".raw"
		defer os.Remove(raw)
	}
	f, err := os.Create(raw)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	if partition {
		mbr := make([]byte, 512)
		entry := mbr[446:]
		entry[4] = 0x8e // Linux LVM
		binary.LittleEndian.PutUint32(entry[8:], 2048)
		binary.LittleEndian.PutUint32(entry[12:], uint32(size/512-2048))
		mbr[510], mbr[511] = 0x55, 0xaa
		if _, err := f.WriteAt(mbr, 0); err != nil {
			return err
		}
	}
	if format == "raw" {
		return nil
	}
	return qemuImg("convert", "-f", "raw", "-O", format, raw, path)
}

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

// chance is true once in n times.
func (r *round) chance(n int) bool { return r.rng.IntN(n) == 0 }

// oneLine is for messages.
func oneLine(b []byte) string { return string(bytes.Join(bytes.Fields(b), []byte(" "))) }
