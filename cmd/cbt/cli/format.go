package cli

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/text"
)

// What a source can be.
const (
	formatRaw   = "raw"
	formatQcow2 = "qcow2"
	formatDelta = "cbt"
	formatState = "state" // of a machine

	formatUnfinished = "unfinished machine state"
	formatQcow1      = "qcow image of version 1"
	formatELFCore    = "ELF core file"
	formatOverlay    = "overlay of cbt"
)

// signatures of what a disk does not start with unless somebody put it there.
var signatures = []struct {
	off    int
	magic  string
	format string
}{
	{0, "QFI\xfb", formatQcow2},
	{0, "\x04\x22\x4d\x18\x60\x40\x82\x00\x00\x00\x00\x50\x2a\x4d\x18", formatDelta},
	{0, "QEVM", formatState},
	{0, "LibvirtQemudSave", formatState},
	{0, "LibvirtQemudPart", formatUnfinished},
	{0, "cbt-ovl\x01", formatOverlay},
	{0, "QFI\xfb\x00\x00\x00\x01", formatQcow1},
	{0, "QED\x00", "QED image"},
	{0, "KDMV", "VMDK image"},
	{0, "COWD", "VMDK image"},
	{0, "# Disk DescriptorFile", "VMDK descriptor"},
	{0, "vhdxfile", "VHDX image"},
	{0, "conectix", "VHD image"},
	{0x40, "\x7f\x10\xda\xbe", "VDI image"},
	{0, "WithoutFreeSpace", "Parallels image"},
	{0, "WithouFreSpacExt", "Parallels image"},
	{0, "EVF\x09\x0d\x0a\xff\x00", "EWF (E01) image"},
	{0, "EVF2\x0d\x0a\x81\x00", "EWF (Ex01) image"},
	{0, "AFF", "AFF image"},
	{0, "\x1f\x8b\x08", "gzip file"},
	{0, "\xfd7zXZ\x00", "xz file"},
	{0, "\x28\xb5\x2f\xfd", "zstd file"},
	{0, "\x04\x22\x4d\x18", "LZ4 file"},
	{0, "KDUMP   ", "kdump core file"},
	{0, "makedumpfile\x00", "kdump core file"},
	{0, "PAGEDU64", "Windows crash dump"},
	{0, "PAGEDUMP", "Windows crash dump"},
}

// A fixed-size VHD is a raw image with this at the start of its last 512
// bytes; an Apple disk image ends likewise.
var trailers = map[string]string{"conectix": "VHD image", "koly": "Apple disk image"}

// containers are the names of files that are surely not raw.
var containers = map[string]string{
	".qcow2": formatQcow2, ".qcow": formatQcow2, ".cbt": formatDelta,
	".save": formatState, ".state": formatState,
	".vmdk": "VMDK image", ".vhdx": "VHDX image", ".vhd": "VHD image", ".vdi": "VDI image",
}

// sniff names what f starts like, formatRaw if nothing known. LUKS counts as raw:
// many a guest encrypts its whole disk, and a copy of such bytes is what it was.
func sniff(f io.ReaderAt, size int64) (string, error) {
	head, err := readHead(f, 512)
	if err != nil {
		return "", err
	}
	if n := len(head); n > 0 && n < 4 && string(head) == signatures[0].magic[:n] {
		return formatQcow2, nil // cut inside its magic: to be refused, not read
	}
	// The longest that fits: qcow of version 1 has qcow2's magic, a delta LZ4's.
	found, longest := "", 0
	for _, s := range signatures {
		if len(s.magic) > longest && len(head) >= s.off && bytes.HasPrefix(head[s.off:], []byte(s.magic)) {
			found, longest = s.format, len(s.magic)
		}
	}
	if isELFCore(head) {
		found = formatELFCore
	}
	if found != "" {
		return found, nil
	}
	tail, err := readTail(f, size, 512)
	if err != nil {
		return "", err
	}
	for magic, format := range trailers {
		if size > 512 && bytes.HasPrefix(tail, []byte(magic)) {
			return format, nil
		}
	}
	return formatRaw, nil
}

// guestWritten says whether the first bytes of f may be a guest's doing, who
// could make them a qcow2 header that names any file of the host as backing.
func guestWritten(f *infile.Input) bool {
	for _, name := range []string{f.Path, f.Real} {
		switch strings.ToLower(filepath.Ext(name)) {
		case ".raw", ".img", ".dd":
			return true
		}
	}
	return f.Info.Block
}

// decideFormat says what f, named by the user, is. flag is "--format", as the
// command calls it, and forced its value, or empty.
func decideFormat(f *file, flag, forced string) (string, error) {
	if forced == formatRaw {
		return formatRaw, nil
	}
	found, err := sniff(f, f.Info.Size)
	if err != nil {
		return "", err
	}
	if forced != "" {
		if found != forced {
			return "", fail.Usage("%s: starts like a %s, not like the %s that %s says", f.Path, formatName(found), formatName(forced), flag)
		}
		return found, nil
	}
	named := containers[strings.ToLower(filepath.Ext(f.Path))]
	switch {
	case found == formatRaw && named != "" && f.Info.Size == 0:
		return "", fail.Usage("%s: is empty, and so no %s: did what writes it fail?", f.Path, formatName(named))
	case found == formatRaw && named != "":
		return "", fail.Usage("%s: is named like a %s but does not start like one: %s raw reads it as it is", f.Path, formatName(named), flag)
	case found == formatRaw:
	case guestWritten(f.Input):
		return "", fail.Usage("%s: starts like a %s, which may be a guest's doing: say what it is with %s %s", f.Path, formatName(found), flag, formatChoice(found))
	case found == formatUnfinished:
		return "", fail.Usage("%s: is an %s: libvirt did not finish it (%s raw takes its bytes)", f.Path, found, flag)
	case found != formatQcow2 && found != formatDelta && found != formatState:
		return "", fail.Usage("%s: is %s, which cbt does not read: %s, or take its bytes as they are with %s raw", f.Path, withArticle(found), wayOut(found, f.Path), flag)
	}
	return found, nil
}

func formatChoice(found string) string {
	if found == formatQcow2 || found == formatState {
		return found + " or raw"
	}
	return "raw"
}

// formatName is what messages call a format.
func formatName(format string) string {
	if format == formatState {
		return "saved machine state"
	}
	return format
}

// checkFormat refuses what --format does not know.
func checkFormat(flag, format string) error {
	switch format {
	case "", formatRaw, formatQcow2, formatState:
		return nil
	}
	return fail.Usage("%s %s: is qcow2, raw or state", flag, text.Printable(format))
}

// isELFCore says whether head begins an ELF file that is a core: e_type, in the
// byte order that e_ident tells, is ET_CORE.
func isELFCore(head []byte) bool {
	return len(head) >= 18 && string(head[:4]) == "\x7fELF" && head[16]^head[17] == 4 && (head[5] == 1 && head[16] == 4 || head[5] == 2 && head[17] == 4)
}

// startsLikeLUKS says whether f begins with a LUKS header of any version.
func startsLikeLUKS(f io.ReaderAt) (bool, error) {
	head, err := readHead(f, 6)
	return string(head) == "LUKS\xba\xbe", err
}

func withArticle(format string) string {
	if strings.HasPrefix(format, "E") || strings.HasPrefix(format, "A") || strings.HasPrefix(format, "LZ4") || strings.HasPrefix(format, "xz") || strings.HasPrefix(format, "o") {
		return "an " + format
	}
	return "a " + format
}

// wayOut says what makes an image that cbt reads of one that it does not.
func wayOut(found, path string) string {
	word := text.Quote(qemuPath(path))
	convert := func(driver string) string {
		return "convert it (qemu-img convert -f " + driver + " -O qcow2 " + word + " " + text.Quote(qemuPath(path)+".qcow2") + ")"
	}
	switch found {
	case formatQcow1:
		return convert("qcow")
	case "QED image":
		return convert("qed")
	case "VMDK image", "VMDK descriptor":
		return convert("vmdk")
	case "VHDX image":
		return convert("vhdx")
	case "VHD image":
		return convert("vpc")
	case "VDI image":
		return convert("vdi")
	case "Parallels image":
		return convert("parallels")
	case "Apple disk image":
		return convert("dmg")
	case "EWF (E01) image", "EWF (Ex01) image":
		return "show it as a raw file (ewfmount) or convert it (ewfexport)"
	case "gzip file", "xz file", "zstd file", "LZ4 file":
		return "unpack it"
	case formatOverlay:
		return "it is what was written over an image: cbt serve or mount that with --overlay " + word
	case formatELFCore:
		return "it is the memory of a machine and no disk: gdb, crash or volatility look into it, and cbt ram find"
	case "kdump core file", "Windows crash dump":
		return "it is the memory of a machine and no disk: gdb, crash or volatility look into it"
	}
	return "convert it"
}

// readHead returns the first n bytes of f, or all there are.
func readHead(f io.ReaderAt, n int) ([]byte, error) {
	p := make([]byte, n)
	n, err := f.ReadAt(p, 0)
	if err == io.EOF {
		err = nil
	}
	return p[:n], err
}

// readTail returns the last n of size bytes of f, or all there are.
func readTail(f io.ReaderAt, size, n int64) ([]byte, error) {
	n = min(n, size)
	p := make([]byte, n)
	got, err := f.ReadAt(p, size-n)
	if err == io.EOF {
		err = nil
	}
	return p[:got], err
}
