//go:build linux && amd64 && !cbtlive

package hostlvm_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cbt/internal/testvm"
)

// TestInMachine runs the tests of live_test.go, which need device-mapper, in
// the test machine.
func TestInMachine(t *testing.T) {
	dir := t.TempDir()
	live := filepath.Join(dir, "live.test")
	build := exec.Command("go", "test", "-c", "-tags", "cbtlive", "-o", live, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v: %s", err, out)
	}
	vm := testvm.Start(t, testvm.Options{
		CPUs: 2,
		Disks: []testvm.Disk{
			{Path: file(t, dir, "vda", 400<<20, nil)},
			{Path: file(t, dir, "vdb", 65<<20, partitioned(64<<20))},
			{Path: file(t, dir, "vdc", 64<<20, nil)},
		},
		Files: map[string]string{"/live.test": live},
	})
	r, err := vm.Exec(testvm.Command{
		Args:    []string{"/live.test", "-test.v", "-test.timeout=5m"},
		Env:     []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "DM_DISABLE_UDEV=1"},
		Timeout: 6 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	passed, all := 0, results(r.Stdout)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		result := all[name]
		t.Run(name, func(t *testing.T) {
			if result.verdict != "PASS" {
				t.Errorf("%s\n%s", result.verdict, result.log)
			}
			passed++
		})
	}
	if r.Exit != 0 || passed == 0 {
		t.Errorf("%d tests in %v", passed, r)
	}
}

type result struct {
	verdict string
	log     string
}

// results finds the tests, not the subtests, in what a test binary printed.
func results(out []byte) map[string]result {
	all := map[string]result{}
	var log bytes.Buffer
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		line := lines.Text()
		fmt.Fprintln(&log, line)
		if rest, ok := strings.CutPrefix(line, "--- "); ok {
			verdict, rest, _ := strings.Cut(rest, ": ")
			name, _, _ := strings.Cut(rest, " ")
			all[name] = result{verdict, log.String()}
			log.Reset()
		}
	}
	return all
}

func file(t *testing.T, dir, name string, size int64, begin []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, begin, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// partitioned is an MBR with one partition that begins after a megabyte.
func partitioned(size uint32) []byte {
	b := make([]byte, 512)
	b[446+4] = 0x8e // LVM
	binary.LittleEndian.PutUint32(b[446+8:], 2048)
	binary.LittleEndian.PutUint32(b[446+12:], size/512)
	b[510], b[511] = 0x55, 0xaa
	return b
}
