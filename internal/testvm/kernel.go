package testvm

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = filepath.Join(os.TempDir(), fmt.Sprintf("cache-%d", os.Getuid()))
	}
	cache = filepath.Join(cache, "cbt-testvm")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if have, _ := filepath.Glob(filepath.Join(cache, "linux-image-*", "boot", "vmlinuz-*")); len(have) > 0 {
		return filepath.Dir(filepath.Dir(slices.Max(have))), nil
	}
	return download(cache)
}

// download unpacks the kernel package into a directory of dir, which it names.
func download(dir string) (string, error) {
	name, err := newest()
	if err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := command(tmp, "apt-get", "download", "-q", name); err != nil {
		return "", err
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) != 1 {
		return "", fmt.Errorf("apt-get download %s left %q", name, debs)
	}
	if err := command(tmp, "dpkg", "-x", debs[0], "k"); err != nil {
		return "", err
	}
	to := filepath.Join(dir, name)
	return to, os.Rename(filepath.Join(tmp, "k"), to)
}

// newest is the package that kernelPackage stands for.
func newest() (string, error) {
	name, err := dependency()
	if name == "" && os.Getuid() == 0 {
		// A fresh container has no package lists.
		if err := command("", "apt-get", "update", "-qq"); err != nil {
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
	out, err := exec.Command("apt-cache", "depends", kernelPackage).Output()
	if err != nil {
		return "", fmt.Errorf("apt-cache depends %s: %w", kernelPackage, err)
	}
	for s := bufio.NewScanner(strings.NewReader(string(out))); s.Scan(); {
		if name, ok := strings.CutPrefix(strings.TrimSpace(s.Text()), "Depends: "); ok && strings.HasPrefix(name, "linux-image-") {
			return name, nil
		}
	}
	return "", nil
}

// command runs a program in a directory; its error has what the program said.
func command(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
