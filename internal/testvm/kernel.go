package testvm

import (
	"errors"
	"os"
	"strings"

	"cbt/internal/testdeb"
)

// KernelEnv names the environment variable that may hold a directory with an
// unpacked kernel package (boot/vmlinuz-*, lib/modules/*). Without it Debian's
// kernelPackage is downloaded.
const KernelEnv = "CBT_TESTVM_KERNEL"

// kernelPackage depends on the newest kernel package. "cloud": few drivers,
// among them all of virtio and device-mapper.
const kernelPackage = "linux-image-cloud-amd64"

// kernel gives the directory of an unpacked kernel package, downloaded into
// the user's cache directory if there is none yet. What is in the cache stays
// there, and is used without asking whether there is a newer one.
func kernel() (string, error) {
	if dir := os.Getenv(KernelEnv); dir != "" {
		return dir, nil
	}
	return testdeb.Cached("cbt-testvm", "linux-image-*", func(tmp string) (string, error) {
		name, err := newest()
		if err != nil {
			return "", err
		}
		if _, err := testdeb.Output(tmp, "apt-get", "download", "-q", name); err != nil {
			return "", err
		}
		return name, testdeb.Unpack(tmp, name)
	})
}

// newest is the package that kernelPackage stands for.
func newest() (string, error) {
	name, err := dependency()
	if name == "" && os.Getuid() == 0 {
		// A fresh container has no package lists.
		if _, err := testdeb.Output("", "apt-get", "update", "-qq"); err != nil {
			return "", err
		}
		name, err = dependency()
	}
	if name == "" && err == nil {
		err = errors.New("apt knows no kernel package " + kernelPackage)
	}
	return name, err
}

func dependency() (string, error) {
	out, err := testdeb.Output("", "apt-cache", "depends", kernelPackage)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(name, "linux-image-") {
			return name, nil
		}
	}
	return "", nil
}
