package vmstate

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cbt/internal/testqemu"
	"cbt/internal/testtool"
)

// libvirtDomain is a domain whose memory is filled by a device of fillFile.
const libvirtDomain = `<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>vm&amp;1</name>
  <uuid>8f8a2a4e-6a0f-4b6e-9d0a-0d6d1f3c1a5b</uuid>
  <memory unit='B'>%d</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <clock offset='utc'><timer name='rtc' track='guest'/></clock>
  <devices><controller type='usb' model='none'/><memballoon model='none'/></devices>
  <qemu:commandline><qemu:arg value='-device'/><qemu:arg value='%s'/></qemu:commandline>
</domain>
`

// pmemsave returns the virsh command that writes the memory of the machine to a file.
func pmemsave(file string) string {
	return fmt.Sprintf("qemu-monitor-command 'vm&1' --hmp 'pmemsave 0 %d \"%s\"'", filledRAM, file)
}

// memory returns what pmemsave wrote.
func memory(t *testing.T, l *testqemu.Libvirt, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(l.Dir, file))
	if err != nil || len(b) != filledRAM {
		t.Fatalf("%d bytes of memory: %v", len(b), err)
	}
	return b
}

// An image that libvirt saves of a domain, in any of its formats, has the same RAM as pmemsave.
// libvirt restores the images written here.
func TestNewLibvirt(t *testing.T) {
	if testing.Short() {
		t.Skip("short: some twenty machines")
	}
	formats := []string{"raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse", "sparse --parallel-channels 2"}
	for _, packer := range formats[1:6] {
		testtool.Need(t, packer)
	}
	l := testqemu.NewLibvirt(t)
	path := func(name string) string { return filepath.Join(l.Dir, name) }
	if err := os.WriteFile(path("domain.xml"), fmt.Appendf(nil, libvirtDomain, filledRAM, fillFile(t, 8<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	// Give the firmware two seconds: only then is all of its memory RAM.
	commands := []string{"create domain.xml", "event 'vm&1' reboot --timeout 2", "suspend 'vm&1'", pmemsave(path("memory"))}
	for i, format := range formats {
		commands = append(commands, fmt.Sprintf("save 'vm&1' saved%d --image-format %s", i, format), fmt.Sprintf("restore saved%d --paused", i))
	}
	l.Virsh(append(commands, pmemsave(path("after")), "dump 'vm&1' dumped")...)
	want := memory(t, l, "memory")
	sameMemory(t, memory(t, l, "after"), want)
	samePhysical(t, openFile(t, path("dumped")).Block("pc.ram"), want)

	raw := openFile(t, path("saved0"))
	canonical := stream(t, raw)
	again, err := NewLibvirt(raw.Libvirt.XML, true)
	if err != nil {
		t.Fatal(err)
	}
	writeLibvirt(t, raw, again, path("again"))
	commands = []string{"restore again", "domstate 'vm&1'", "destroy 'vm&1'"}
	for i, format := range formats {
		t.Run(format, func(t *testing.T) {
			s := openFile(t, path(fmt.Sprint("saved", i)))
			samePhysical(t, s.Block("pc.ram"), want)
			sameStored(t, s.Block("pc.ram"))
			name, _, _ := strings.Cut(format, " ")
			if s.Container != "libvirt "+name || s.Libvirt.Format != name || s.Libvirt.Name != "vm&1" || s.Libvirt.UUID != "8f8a2a4e-6a0f-4b6e-9d0a-0d6d1f3c1a5b" ||
				s.Libvirt.WasRunning || s.Libvirt.Cookie == "" || s.Complete() != nil {
				t.Errorf("%s %v %+v", s.Container, s.Complete(), s.Libvirt)
			}
			if !bytes.Equal(stream(t, s), canonical) {
				t.Error("another canonical stream")
			}
			if format == "raw" || format == "sparse" {
				writeLibvirt(t, s, s.Libvirt, path("written-"+format))
				commands = append(commands, "restore written-"+format, "domstate 'vm&1'", pmemsave(path("memory-"+format)), "destroy 'vm&1'")
			}
		})
	}
	if got := strings.Fields(l.Virsh(commands...)); !slices.Equal(got, []string{"running", "paused", "paused"}) {
		t.Errorf("the machines are %q", got)
	}
	sameMemory(t, memory(t, l, "memory-raw"), want)
	sameMemory(t, memory(t, l, "memory-sparse"), want)
}

func writeLibvirt(t *testing.T, s *State, l *Libvirt, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(s.WriteLibvirt(f, l, nil), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}
