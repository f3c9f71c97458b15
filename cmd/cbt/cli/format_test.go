package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/fail"
	"cbt/internal/infile"
)

func TestDecideFormat(t *testing.T) {
	dir := t.TempDir()
	pad := func(head string) string { return head + strings.Repeat("\x00", 1024-len(head)) }
	qcow := pad("QFI\xfb\x00\x00\x00\x03")
	delta := pad("\x04\x22\x4d\x18\x60\x40\x82\x00\x00\x00\x00\x50\x2a\x4d\x18")
	for _, c := range []struct {
		name, content, forced string
		want                  string // a format, or what the error says
		code                  int
	}{
		{"disk", qcow, "", formatQcow2, 0},
		{"disk.qcow2", qcow, "", formatQcow2, 0},
		{"disk.qcow2", qcow, "raw", formatRaw, 0},
		{"disk.qcow2", qcow, "qcow2", formatQcow2, 0},
		{"disk.raw", qcow, "", "a guest's doing: say what it is with --format qcow2 or raw", fail.UsageCode},
		{"disk.img", qcow, "", "a guest's doing", fail.UsageCode},
		{"disk.IMG", qcow, "", "a guest's doing", fail.UsageCode},
		{"disk.dd", qcow, "", "a guest's doing", fail.UsageCode},
		{"disk.img", qcow, "qcow2", formatQcow2, 0},
		{"disk.img", qcow, "raw", formatRaw, 0},
		{"disk.img", pad("KDMV"), "", "a guest's doing: say what it is with --format raw", fail.UsageCode},
		{"disk.img", delta, "", "a guest's doing", fail.UsageCode},
		{"disk.img", pad("boot"), "", formatRaw, 0},
		{"disk", "", "", formatRaw, 0},
		{"disk", "QF", "", formatQcow2, 0},
		{"disk", pad("boot"), "qcow2", "starts like a raw, not like the qcow2", fail.UsageCode},
		{"disk.qcow2", pad("boot"), "", "does not start like one: --format raw", fail.UsageCode},
		{"x", delta, "", formatDelta, 0},
		{"disk.vmdk", pad("KDMV\x01"), "", "is a VMDK image, which cbt does not read", fail.UsageCode},
		{"disk.vmdk", pad("# Disk DescriptorFile\nversion=1"), "", "VMDK descriptor", fail.UsageCode},
		{"disk.vhdx", pad("vhdxfile"), "", "VHDX", fail.UsageCode},
		{"disk.vhd", pad("conectix"), "", "VHD image", fail.UsageCode},
		{"fixed", pad("boot") + pad("")[:512] + "conectix" + pad("")[:504], "", "VHD image", fail.UsageCode},
		{"disk.vdi", pad(strings.Repeat("<", 64) + "\x7f\x10\xda\xbe"), "", "VDI", fail.UsageCode},
		{"disk.E01", pad("EVF\x09\x0d\x0a\xff\x00"), "", "EWF", fail.UsageCode},
		{"disk.gz", pad("\x1f\x8b\x08"), "", "gzip", fail.UsageCode},
		{"disk.gz", pad("\x1f\x8b\x08"), "raw", formatRaw, 0},
		{"vm.save", pad("LibvirtQemudSave"), "", formatState, fail.Done},
		{"state", pad("QEVM\x00\x00\x00\x03"), "", formatState, fail.Done},
		{"state.raw", pad("QEVM\x00\x00\x00\x03"), "", "starts like a saved machine state, which may be a guest's doing: say what it is with --format state or raw", fail.UsageCode},
		{"state.raw", pad("QEVM\x00\x00\x00\x03"), formatState, formatState, fail.Done},
		{"disk", pad("no state"), formatState, "starts like a raw, not like the saved machine state that --format says", fail.UsageCode},
	} {
		path := filepath.Join(dir, c.name)
		if err := os.WriteFile(path, []byte(c.content), 0o644); err != nil {
			t.Fatal(err)
		}
		var o opener
		f, err := openFile(path, &o.reads, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decideFormat(f, "--format", c.forced)
		f.Close()
		switch {
		case c.code == 0:
			if err != nil || got != c.want {
				t.Errorf("%s %.8q, --format %q: %q, %v; want %s", c.name, c.content, c.forced, got, err, c.want)
			}
		case err == nil || !strings.Contains(err.Error(), c.want) || (&app{started: true}).exitCode(t.Context(), err) != c.code:
			t.Errorf("%s %.8q, --format %q: %q, %v; want exit %d and %q", c.name, c.content, c.forced, got, err, c.code, c.want)
		}
	}
}

// A block device may hold anything a guest likes.
func TestDeviceIsGuestWritten(t *testing.T) {
	if !guestWritten(&infile.Input{Path: "/dev/vg0/vm1", Info: infile.Stat{Block: true}}) {
		t.Error("a device's first bytes are believed")
	}
	if !guestWritten(&infile.Input{Path: "vm1", Real: "/images/vm1.raw"}) {
		t.Error("a link to a raw disk hides what it is")
	}
}
