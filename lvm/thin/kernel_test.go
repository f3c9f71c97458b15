package thin

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cbt/internal/testvm"
	"cbt/sparse"
)

// touchEnv makes this test binary, in the test machine, write a sector of every chunk of a device:
// DEVICE CHUNKSIZE CHUNKS.
const touchEnv = "CBT_TOUCH"

func TestMain(m *testing.M) {
	what := os.Getenv(touchEnv)
	if what == "" {
		os.Exit(m.Run())
	}
	var device string
	var size, chunks int64
	if _, err := fmt.Sscan(what, &device, &size, &chunks); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if err := touch(device, size, chunks); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func touch(device string, size, chunks int64) error {
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 4096)
	for i := range chunks {
		if _, err := f.WriteAt(b, i*size); err != nil {
			return err
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

// TestKernelTrees lets a real kernel make trees for 1, 10 and 100 GiB of mapped blocks, then take
// snapshots with few writes between them. Changed must name exactly what the writes changed, and
// read no more than 4 nodes for each level and each leaf that changed. Chunks are 64 KiB if
// CBT_LONG is set, so that the largest device has 1.6 million mappings; otherwise there are at most
// 102,400.
func TestKernelTrees(t *testing.T) {
	if testing.Short() {
		t.Skip("boots three machines")
	}
	testvm.Need(t)
	self := filepath.Join(t.TempDir(), "thin.test")
	build := exec.Command("go", "test", "-c", "-o", self, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v: %s", err, out)
	}
	for _, c := range []struct {
		name          string
		mapped, chunk int64 // in bytes
	}{
		{"1 GiB", 1 << 30, 64 << 10},
		{"10 GiB", 10 << 30, 256 << 10},
		{"100 GiB", 100 << 30, 1 << 20},
	} {
		if os.Getenv("CBT_LONG") != "" {
			c.chunk = 64 << 10
		}
		t.Run(c.name, func(t *testing.T) { kernelTree(t, self, c.mapped, c.chunk) })
	}
}

func kernelTree(t *testing.T, self string, mapped, chunk int64) {
	meta := filepath.Join(t.TempDir(), "meta")
	f, err := os.Create(meta)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(256 << 20); err != nil {
		t.Fatal(err)
	}
	vm := testvm.Start(t, testvm.Options{
		Disks: []testvm.Disk{{Path: meta}},
		Files: map[string]string{"/thin.test": self},
	})

	// Nobody will read the data: they go to a target that discards them.
	chunks := uint64(mapped / chunk)
	r := rand.New(rand.NewPCG(7, chunks))
	var script strings.Builder
	fmt.Fprintf(&script, `set -e
modprobe dm-thin-pool
dmsetup create data --table "0 %[1]d zero"
dmsetup create pool --table "0 %[1]d thin-pool /dev/vda /dev/mapper/data %[2]d 0 1 skip_block_zeroing"
dmsetup message pool 0 "create_thin 0"
dmsetup create vol --table "0 %[3]d thin /dev/mapper/pool 0"
CBT_TOUCH="/dev/mapper/vol %[4]d %[5]d" /thin.test
snap() {
	dmsetup suspend vol
	dmsetup message pool 0 "create_snap $1 0"
	dmsetup resume vol
}
touch1() { dd if=/dev/zero of=/dev/mapper/vol bs=4k seek=$(($1 * %[4]d / 4096)) count=1 oflag=direct conv=notrunc status=none; }
snap 1
`, (mapped+mapped/8)/512, chunk/512, mapped/512, chunk, chunks)
	steps := [][]uint64{nil, {chunks / 3}, nil, nil}
	for range 10 {
		steps[2] = append(steps[2], r.Uint64N(chunks))
	}
	for range 100 {
		steps[3] = append(steps[3], r.Uint64N(chunks))
	}
	for i, step := range steps {
		for _, c := range step {
			fmt.Fprintf(&script, "touch1 %d\n", c)
		}
		fmt.Fprintf(&script, "snap %d\n", i+2)
	}
	script.WriteString("dmsetup remove vol\ndmsetup remove pool\n")
	res, err := vm.Exec(testvm.Command{Script: script.String(), Timeout: 20 * time.Minute})
	if err != nil || res.Exit != 0 {
		t.Fatalf("%v: %v", err, res)
	}
	if err := vm.Shutdown(); err != nil {
		t.Fatal(err)
	}

	for i, step := range steps {
		// Opened again, so that no node is in memory.
		m, err := Open(f, 256<<20, Options{})
		if err != nil {
			t.Fatal(err)
		}
		var views [2]*View
		leaves := [2]map[uint64]bool{{}, {}}
		for j := range views {
			if views[j], err = m.View(uint32(i+1+j), mapped, Data{}, nil); err != nil {
				t.Fatal(err)
			}
		}
		before := m.NodesRead()
		got := map[uint64]bool{}
		for e, err := range Changed(views[0], views[1], 0, mapped) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind != sparse.Data || e.Off%chunk != 0 || e.Len%chunk != 0 {
				t.Fatalf("%v", e)
			}
			for at := e.Off; at < e.End(); at += chunk {
				got[uint64(at/chunk)] = true
			}
		}
		read := m.NodesRead() - before
		want := map[uint64]bool{}
		for _, c := range step {
			want[c] = true
		}
		if len(got) != len(want) {
			t.Errorf("step %d: %d chunks are named, %d were written", i, len(got), len(want))
		}
		for c := range want {
			if !got[c] {
				t.Errorf("step %d: chunk %d was written and is not named", i, c)
			}
		}
		for j, v := range views {
			collectLeaves(t, m, v.dev.Root, v.dev.ID, leaves[j])
		}
		changed := int64(0)
		for j := range leaves {
			for b := range leaves[j] {
				if !leaves[1-j][b] {
					changed++
				}
			}
		}
		// Leaves of both trees were counted.
		limit := 4 * int64(views[1].height) * max(1, changed/2)
		t.Logf("%d mappings, %d writes: %d nodes read, limit %d; height %d, %d of %d leaves differ",
			chunks, len(step), read, limit, views[1].height, changed/2, len(leaves[1]))
		if read > limit {
			t.Errorf("step %d: %d nodes read, limit %d", i, read, limit)
		}
	}
}

// collectLeaves goes through a whole mapping tree.
func collectLeaves(t *testing.T, m *Metadata, block uint64, id uint32, to map[uint64]bool) {
	t.Helper()
	n, err := m.node(block, mappings, mappings.tree(id))
	if err != nil {
		t.Fatal(err)
	}
	if n.leaf() {
		to[block] = true
		return
	}
	for i := range n.len() {
		collectLeaves(t, m, n.child(i), id, to)
	}
}
