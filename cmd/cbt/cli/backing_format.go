package cli

import (
	"fmt"

	"cbt/internal/fail"
)

// What an image may call the format of its backing file.

// localBytes are QEMU's protocol drivers for what lies on this host. As the
// format of a backing file they mean its bytes as they are.
var localBytes = map[string]bool{"file": true, "host_device": true, "host_cdrom": true, "host_floppy": true}

// remoteBytes are those for what lies elsewhere: its bytes as they are, once a
// file stands for it.
var remoteBytes = map[string]bool{
	"nbd": true, "http": true, "https": true, "ftp": true, "ftps": true, "ssh": true, "rbd": true, "iscsi": true,
	"gluster": true, "nfs": true, "nvme": true, "sheepdog": true, "vxhs": true,
}

// backingFormat says what to read the backing file of owner as, of which the
// image says that it has the given format.
func (o *opener) backingFormat(owner *file, name, format string) (string, error) {
	switch {
	case format == formatRaw, format == formatQcow2:
		return format, nil
	case localBytes[format], remoteBytes[format] && hasProtocol(name): // that name is refused
		return formatRaw, nil
	case format == "" && o.BackingFormat != "":
		return o.BackingFormat, nil
	case format == "":
		return "", fail.Usage("%s: names no format for its %s %q: --backing-format qcow2 or raw", owner.Path, backingFile, name)
	}
	return "", fmt.Errorf("%s: %s %q has the format %q, which cbt does not read: convert it, and %s names the copy",
		owner.Path, backingFile, name, format, standInFlag(backingFile, name))
}

// standInFormat is backingFormat for f, which the user named in place of the
// backing file. Where the image's word cannot be meant of f, its header decides
// as it does for every file that the user names.
func (o *opener) standInFormat(owner *file, name, format string, f *file) (string, error) {
	if format == formatRaw || localBytes[format] || remoteBytes[format] {
		return formatRaw, nil
	}
	if format != formatQcow2 {
		found, err := decideFormat(f, "--backing-format", o.BackingFormat)
		if err == nil && found != formatRaw && found != formatQcow2 {
			err = fail.Usage("%s: is a %s, which is no %s", f.Path, formatName(found), backingFile)
		}
		return found, err
	}
	found, err := sniff(f, f.Info.Size)
	if err != nil {
		return "", err
	}
	switch {
	case found == formatQcow2:
		return found, nil
	case o.BackingFormat == formatRaw:
		return formatRaw, nil
	}
	return "", fail.Usage("%s: is no qcow2 image, as %s says of its %s %q: --backing-format raw reads it as it is", f.Path, owner.Path, backingFile, name)
}
