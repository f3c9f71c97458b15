package vmstate

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cbt/internal/testqemu"
	"cbt/internal/testtool"
	"cbt/sparse"
)

// TestMoreGDB has gdb read the registers, and memory in every segment, from our core file and from
// QEMU's own of the same machine.
func TestMoreGDB(t *testing.T) {
	testtool.More(t)
	fill := fillFile(t, 32<<20)
	above := strings.Replace(fill, "addr=0x1000000", "addr=0x100000000", 1)
	m := testqemu.Start(t, "-M", "pc,max-ram-below-4g=64M", "-m", "128", "-device", fill, "-device", above)
	_, core := bothCores(t, m, time.Second)
	path := filepath.Join(m.Dir, "core")
	b := make([]byte, core.Size())
	if _, err := sparse.ReadFull(core, b, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(core)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-ex", "echo begin\\n", "-ex", "info registers"}
	loads := 0
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		loads++
		for i := range uint64(32) {
			args = append(args, "-ex", fmt.Sprintf("x/64xb 0x%x", p.Paddr+i*((p.Memsz-64)/31)))
		}
	}
	if loads != 4 {
		t.Errorf("%d segments, want four: below VGA's hole, after it, the firmware, and above 4 GiB", loads)
	}
	read := func(core string) []string {
		text, err := testtool.Try(t, "gdb", append([]string{"-batch", "-nx", "-ex", "core-file " + core}, args...)...)
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		// The output before the registers names the file.
		_, text, _ = strings.Cut(text, "begin\n")
		return strings.Split(text, "\n")
	}
	got, want := read(path), read(filepath.Join(m.Dir, "dump"))
	if len(want) < loads*32*8 || len(got) != len(want) {
		t.Fatalf("gdb prints %d lines of ours, and %d of QEMU's", len(got), len(want))
	}
	shown := 0
	for i := range want {
		if got[i] != want[i] && shown < 10 {
			shown++
			t.Errorf("gdb reads\n%s\nand out of QEMU's core\n%s", got[i], want[i])
		}
	}
}
