package testvm

import (
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// archive writes an initramfs: a cpio archive of the format "newc"
// (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).
type archive struct {
	w    io.Writer
	n    int64
	ino  int
	have map[string]bool
	err  error
}

func newArchive(w io.Writer) *archive {
	return &archive{w: w, have: map[string]bool{}}
}

// has says whether a name is in the archive.
func (a *archive) has(name string) bool { return a.have[strings.TrimPrefix(name, "/")] }

func (a *archive) dir(name string) { a.entry(name, 0o040755, nil) }

// link makes a symbolic link.
func (a *archive) link(name, to string) { a.entry(name, 0o120777, []byte(to)) }

func (a *archive) file(name string, perm os.FileMode, content []byte) {
	a.entry(name, 0o100000|uint32(perm.Perm()), content)
}

// hostFile adds a file of this machine under a name.
func (a *archive) hostFile(name, from string) {
	if a.err != nil || a.has(name) {
		return
	}
	st, err := os.Stat(from)
	if err != nil {
		a.err = err
		return
	}
	b, err := os.ReadFile(from)
	if err != nil {
		a.err = err
		return
	}
	a.file(name, st.Mode(), b)
}

// entry adds what is not there yet, and the directories above it.
func (a *archive) entry(name string, mode uint32, content []byte) {
	name = strings.TrimPrefix(path.Clean(name), "/")
	if a.err != nil || name == "" || name == "." || a.have[name] {
		return
	}
	a.dir(path.Dir(name))
	a.have[name] = true
	a.raw(name, mode, content)
}

func (a *archive) raw(name string, mode uint32, content []byte) {
	a.ino++
	// Fields: inode, mode, uid, gid, links, mtime, size, four device numbers, length of the name with its NUL, no checksum.
	a.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.ino, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name))
	a.pad()
	a.write(content)
	a.pad()
}

func (a *archive) pad() { a.write(make([]byte, -a.n&3)) }

func (a *archive) write(b []byte) {
	if a.err == nil {
		_, a.err = a.w.Write(b)
		a.n += int64(len(b))
	}
}

// close ends the archive.
func (a *archive) close() error {
	a.raw("TRAILER!!!", 0, nil)
	return a.err
}
