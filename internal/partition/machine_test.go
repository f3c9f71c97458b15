package partition

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cbt/internal/testvm"
)

// TestKernelAgrees gives a kernel disks with tables good and bad and compares the
// partitions that it makes of them: numbers, places and sizes.
func TestKernelAgrees(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	testvm.Need(t)
	type disk struct {
		name   string
		sector int
		b      []byte
	}
	var disks []disk
	for name, c := range chains {
		if name == "itself" || name == "two in a ring" {
			continue // the kernel goes round until it has all the partitions that it can have
		}
		disks = append(disks, disk{name, 512, chainDisk(c.put)})
	}
	for _, title := range []string{"gpt", "gpt 4096", "gpt with gaps", "mbr", "mbr last slot", "mbr logical", "mbr logical lba"} {
		_, b := made(t, 40<<20, scripts[title].sector, scripts[title].script)
		disks = append(disks, disk{title, scripts[title].sector, b})
		if title == "gpt" {
			noMBR := bytes.Clone(b)
			clear(noMBR[:512])
			wrongBoot := bytes.Clone(b)
			wrongBoot[446+4] = 0x83
			disks = append(disks, disk{"gpt without MBR", 512, noMBR}, disk{"gpt without protective MBR", 512, wrongBoot})
		}
	}
	_, b := made(t, 100<<20, 4096, "label: dos\nsize=20MiB,type=83\nsize=60MiB,type=5\n5: size=10MiB,type=8e\n6: size=10MiB,type=83\n")
	disks = append(disks, disk{"mbr 4096", 4096, b})
	var opt testvm.Options
	for i, d := range disks {
		path := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if err := os.WriteFile(path, d.b, 0o600); err != nil {
			t.Fatal(err)
		}
		opt.Disks = append(opt.Disks, testvm.Disk{Path: path, ReadOnly: true, Sector: d.sector})
	}
	vm := testvm.Start(t, opt)
	found := 0
	for i, d := range disks {
		var want, have []string
		out := vm.Run(t, fmt.Sprintf("cd /sys/block/vd%c; for p in vd*; do [ -e $p/start ] && echo $p $(cat $p/start $p/size); done; true", 'a'+i))
		for line := range strings.Lines(out) {
			var name string
			var start, size int64
			fmt.Sscan(line, &name, &start, &size) // always in 512 bytes
			want = append(want, fmt.Sprintf("%s:%d+%d", name[3:], start, size))
		}
		got, err := read(d.b, Options{SectorSize: int64(d.sector)})
		if err == nil {
			have = numbers(got)
		}
		// The kernel has a partition of one or two sectors, or a page, for each
		// extended one.
		want = slices.DeleteFunc(want, func(s string) bool {
			return len(s) > 1 && s[1] == ':' && s[0] <= '4' && !slices.Contains(have, s) &&
				(strings.HasSuffix(s, "+1") || strings.HasSuffix(s, "+2") || strings.HasSuffix(s, "+8"))
		})
		slices.Sort(want)
		slices.Sort(have)
		if !slices.Equal(want, have) {
			t.Errorf("%s: the kernel has %q, ours are %q, %v", d.name, want, have, err)
		}
		found += len(have)
	}
	if found < 50 {
		t.Errorf("%d partitions in all", found)
	}
}
