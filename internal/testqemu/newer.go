package testqemu

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"cbt/internal/testdeb"
	"cbt/internal/testtool"
)

const (
	program      = "qemu-system-x86_64"
	newerVersion = 10 // the first with all of mapped-ram is 9.0
)

// Newer gives a QEMU of version 10 or later for StartProgram: this machine's
// own, or one of Debian's backports, some 15 MB that are downloaded once.
// Without any the test is skipped, or fails where testtool.RequireEnv says so.
func Newer(t testing.TB) string {
	t.Helper()
	return newer(t, program, backport)
}

// NewerOther is Newer for a machine that is no PC: s390x, ppc64, arm or aarch64. Its
// packages are some 60 MB.
func NewerOther(t testing.TB, program string) string {
	t.Helper()
	return newer(t, program, backportOthers)
}

func newer(t testing.TB, program string, backport func() (string, error)) string {
	t.Helper()
	if own, ok := testtool.Find(program); ok && version(own) >= newerVersion {
		return own
	}
	dir, err := backport()
	qemu := filepath.Join(dir, programs, program)
	if err == nil && version(qemu) < newerVersion {
		err = fmt.Errorf("%s is of version %d", qemu, version(qemu))
	}
	if err != nil {
		testtool.Missing(t, fmt.Sprintf("no QEMU %d: %v", newerVersion, err))
	}
	return qemu
}

// backport is tried once: to see that there is no network takes apt seconds.
var backport = sync.OnceValues(func() (string, error) {
	return testdeb.Backports("qemu", "qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios")
})

var backportOthers = sync.OnceValues(func() (string, error) {
	return testdeb.Backports("qemu-others", "qemu-system-s390x", "qemu-system-ppc", "qemu-system-arm", "qemu-system-common", "qemu-system-data", "qemu-slof")
})

// version is the first number of a QEMU's version, 0 if it does not run.
func version(qemu string) int {
	out, _ := command(qemu, "--version").Output()
	_, after, _ := strings.Cut(string(out), " version ")
	return number(after)
}

// number is the one that a version begins with, 0 if there is none.
func number(version string) int {
	first, _, _ := strings.Cut(version, ".")
	n, _ := strconv.Atoi(first)
	return n
}

// programs is where packages have QEMU.
const programs = "/usr/bin/"

// rootOf is the directory that the packages of a QEMU were unpacked to, empty if it is
// installed.
func rootOf(qemu string) string {
	root, _, _ := strings.Cut(qemu, programs)
	return root
}

// command runs a QEMU. One out of unpacked packages finds its libraries and
// firmware beside it, but would look for modules (some displays, USB, audio)
// among those of this machine's QEMU.
func command(qemu string, args ...string) *exec.Cmd {
	root := rootOf(qemu)
	if root == "" || root == qemu {
		return exec.Command(qemu, args...)
	}
	firmware := []string{"-L", filepath.Join(root, "usr/share/qemu"), "-L", filepath.Join(root, "usr/share/seabios")}
	cmd := exec.Command(qemu, append(firmware, args...)...)
	libs, _ := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu*"))
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libs, ":"))
	return cmd
}
