package fuzz

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/partition"
	"cbt/internal/testtool"
	"cbt/lvm"
	"cbt/qcow2"
	"cbt/sparse"
)

// TestPartitionPV has LVM make a physical volume inside a partition of a disk and
// finds it again: in the raw file and in a qcow2 image of it.
func TestPartitionPV(t *testing.T) {
	testtool.Need(t, "fdisk")
	testtool.Need(t, "lvm")
	testtool.Need(t, "qemu-img")
	for title, c := range map[string]struct {
		script string
		number int
		off    int64
	}{
		"gpt":     {"label: gpt\nsize=2MiB\nsize=20MiB,type=E6D6D379-F507-44C2-A23C-238F2A3DF928\n", 2, 3 << 20},
		"primary": {"label: dos\nsize=2MiB,type=83\nsize=20MiB,type=8e\n", 2, 3 << 20},
		"logical": {"label: dos\nsize=2MiB,type=83\nsize=30MiB,type=5\n5: size=3MiB,type=83\n6: size=20MiB,type=8e\n", 6, 8 << 20},
	} {
		t.Run(title, func(t *testing.T) {
			dir := t.TempDir()
			disk := filepath.Join(dir, "disk")
			script := filepath.Join(dir, "script")
			if err := os.WriteFile(script, []byte(c.script), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(disk, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(disk, 40<<20); err != nil {
				t.Fatal(err)
			}
			testtool.Run(t, "sh", "-c", fmt.Sprintf("printf 'I\\n%s\\nw\\n' | %s %s", script, testtool.Need(t, "fdisk"), disk))
			device := testtool.Loop(t, disk, fmt.Sprintf("--offset=%d", c.off), fmt.Sprintf("--sizelimit=%d", 20<<20))
			config := fmt.Sprintf(`devices { use_devicesfile=0 filter=["a|^%s$|","r|.*|"] } backup { backup=0 archive=0 }`, device)
			testtool.Run(t, "lvm", "pvcreate", "-q", "-y", "-ff", "--config", config, device)
			id := strings.TrimSpace(testtool.Run(t, "lvm", "pvs", "--config", config, "--noheadings", "-o", "pv_uuid", device))
			testtool.Run(t, "sync", disk)
			raw, err := os.ReadFile(disk)
			if err != nil {
				t.Fatal(err)
			}
			image := filepath.Join(dir, "disk.qcow2")
			testtool.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, image)
			b, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			img, err := qcow2.Open(bytes.NewReader(b), int64(len(b)), qcow2.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for name, v := range map[string]sparse.View{"raw": sparse.Plain(bytes.NewReader(raw), int64(len(raw))), "qcow2": img.Active()} {
				table, err := partition.Read(v, v.Size(), partition.Options{})
				if err != nil || len(table.Warnings) > 0 {
					t.Fatalf("%s: %v, %+v", name, err, table)
				}
				found := 0
				for _, p := range table.Partitions {
					inside := p.View(v)
					pv, err := lvm.ReadPV(inside, inside.Size())
					if err != nil {
						continue
					}
					found++
					if p.Number != c.number || p.Off != c.off || p.Size != 20<<20 || !p.IsLVM() || pv.UUID != id {
						t.Errorf("%s: volume %s in %+v, want %s", name, pv.UUID, p, id)
					}
				}
				if found != 1 {
					t.Errorf("%s: %d physical volumes in %+v", name, found, table)
				}
				if _, err := lvm.ReadPV(io.NewSectionReader(v, 0, v.Size()), v.Size()); err == nil {
					t.Errorf("%s: a physical volume at the start of the disk", name)
				}
			}
		})
	}
}
