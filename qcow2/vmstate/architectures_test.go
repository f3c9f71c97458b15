package vmstate

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cbt/internal/testqemu"
	"cbt/internal/testtool"
)

// TestMoreArchitectures saves machines that are not PCs. Their RAM is what QEMU's pmemsave writes,
// and QEMU resumes from the canonical stream, to the same state.
func TestMoreArchitectures(t *testing.T) {
	testtool.More(t)
	sameMachines(t, "", func(program string) string { return testtool.Need(t, program) })
}

// TestMoreNewArchitectures does the same with QEMU 10, which describes some devices differently.
func TestMoreNewArchitectures(t *testing.T) {
	testtool.More(t)
	sameMachines(t, "s390x ppc64 aarch64", func(program string) string { return testqemu.NewerOther(t, program) })
}

// sameMachines runs machines of these architectures, or of all if none are named.
func sameMachines(t *testing.T, architectures string, find func(program string) string) {
	disk := filepath.Join(t.TempDir(), "disk.qcow2")
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", disk, "8M")
	const size = 64 << 20
	for _, c := range []struct {
		name, program, args string
		block               string
		base                uint64 // of RAM
	}{
		{"s390x", "qemu-system-s390x", "-M s390-ccw-virtio -action panic=pause", "s390.ram", 0},
		{"s390x with devices", "qemu-system-s390x", "-M s390-ccw-virtio -action panic=pause -drive if=none,id=d0,format=qcow2,file=DISK -device virtio-blk-ccw,drive=d0" +
			" -device virtio-rng-ccw -chardev null,id=c -device sclpconsole,chardev=c", "s390.ram", 0},
		{"pseries", "qemu-system-ppc64", "-M pseries -m 256 -device virtio-rng-pci", "ppc_spapr.ram", 0},
		{"pseries with a hash table", "qemu-system-ppc64", "-M pseries,ic-mode=xics -cpu power8 -m 256 -smp 2", "ppc_spapr.ram", 0},
		{"mac99", "qemu-system-ppc", "-M mac99", "ppc_core99.ram", 0},
		{"virt of aarch64", "qemu-system-aarch64", "-M virt,gic-version=3 -cpu cortex-a57 -smp 2 -drive if=none,id=d0,format=qcow2,file=DISK -device virtio-blk-pci,drive=d0", "mach-virt.ram", 1 << 30},
		{"virt of aarch64 with all that there is", "qemu-system-aarch64", "-M virt,virtualization=on,secure=on,iommu=smmuv3 -cpu max", "mach-virt.ram", 1 << 30},
		{"virt of arm", "qemu-system-arm", "-M virt -cpu cortex-a15", "mach-virt.ram", 1 << 30},
		{"malta", "qemu-system-mips", "-M malta", "mips_malta.ram", 0},
		{"malta of mips64el", "qemu-system-mips64el", "-M malta -cpu I6400 -smp 2", "mips_malta.ram", 0},
		{"virt of riscv64", "qemu-system-riscv64", "-M virt -smp 2", "riscv_virt_board.ram", 1 << 31},
	} {
		if architecture := strings.TrimPrefix(c.program, "qemu-system-"); architectures != "" && !slices.Contains(strings.Fields(architectures), architecture) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			var args []string
			for _, arg := range append([]string{"-m", "64"}, strings.Fields(c.args)...) {
				args = append(args, strings.ReplaceAll(arg, "DISK", disk))
			}
			program := find(c.program)
			fill := strings.Replace(fillFile(t, 8<<20), "addr=0x1000000", "addr="+fmt.Sprintf("%d", c.base+32<<20), 1)
			m := testqemu.StartProgram(t, program, append(args, "-device", fill)...)
			time.Sleep(time.Second)
			m.Do("stop", nil)
			memory := func(m *testqemu.Machine) []byte {
				m.Do("pmemsave", map[string]any{"val": c.base, "size": size, "filename": "memory"})
				b, err := os.ReadFile(filepath.Join(m.Dir, "memory"))
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			want := memory(m)
			m.Migrate("exec:cat>state")
			s := openFile(t, filepath.Join(m.Dir, "state"))
			m.Kill() // it uses the disk
			block := s.Block(c.block)
			if block == nil {
				t.Fatalf("no block %s among %d", c.block, len(s.Blocks))
			}
			if !s.Described || len(s.Devices) < 5 || !bytes.Equal(content(t, block)[:size], want) {
				t.Errorf("%d devices, and RAM that pmemsave says is another", len(s.Devices))
			}
			out := stream(t, s)
			sameState(t, open(t, out, Options{}), s)
			path := filepath.Join(t.TempDir(), "canonical")
			if err := os.WriteFile(path, out, 0o600); err != nil {
				t.Fatal(err)
			}
			then := testqemu.StartProgram(t, program, append(args, "-S", "-incoming", "exec:cat "+path)...)
			then.Until("query-migrate", "completed")
			if !bytes.Equal(memory(then), want) {
				t.Error("the machine that goes on has other RAM")
			}
			then.Migrate("exec:cat>state")
			again := openFile(t, filepath.Join(then.Dir, "state"))
			for i := range again.Devices { // the keys exist only since something asked for them
				if d := &again.Devices[i]; d.Name == "s390-skeys" && i < len(s.Devices) {
					d.Size = s.Devices[i].Size
				}
			}
			sameState(t, again, s)
		})
	}
}
