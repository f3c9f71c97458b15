package infile

import (
	"strings"

	"cbt/internal/fail"
)

// addresses are what QEMU and others call images by, and what cbt, which reads files
// and devices of this host, can do with that.
var addresses = map[string]string{
	"nbd":      "is an export of an NBD server: nbdcopy copies it into a file, nbdfuse shows it as one",
	"ssh":      "is on another host: sshfs shows it as a file, or cbt runs there and writes to stdout (-o -)",
	"sftp":     "is on another host: sshfs shows it as a file, or cbt runs there and writes to stdout (-o -)",
	"http":     "is on a web server: it has to be fetched first",
	"https":    "is on a web server: it has to be fetched first",
	"ftp":      "is on a server: it has to be fetched first",
	"s3":       "is in an object store: it has to be fetched first",
	"rbd":      "is in a Ceph cluster: rbd map makes a device of it",
	"iscsi":    "is an iSCSI target: iscsiadm makes a device of it",
	"gluster":  "is on a Gluster volume: a mount of that shows it as a file",
	"nvme":     "is an NVMe device by its PCI address: it is /dev/nvme... while the host's kernel has it",
	"vvfat":    "is a directory as QEMU shows it",
	"blkdebug": "is a description for QEMU: name the file in it",
	"json":     "is a description for QEMU: name the file in it",
	"file":     "is an address: name the file itself",
}

// AddressError says what an address of another host or program is; nil if path is none, or
// there is a file of that name.
func AddressError(path string) error {
	scheme, rest, ok := strings.Cut(path, ":")
	kind, _, _ := strings.Cut(scheme, "+") // nbd+unix
	if ok && kind == "nbds" {
		kind = "nbd"
	}
	says := addresses[strings.ToLower(kind)]
	if !ok || says == "" || rest == "" || Exists(path) {
		return nil
	}
	return fail.Usage("%s: %s; cbt reads files and devices of this host", path, says)
}
