// Package testdeb downloads Debian packages for tests and unpacks them into the
// user's cache directory: nothing is installed. What is there stays there, and
// is used without asking whether there is something newer.
package testdeb

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Cached gives the last directory by name that matches pattern in the directory
// cache of the user's caches. If there is none, fill makes it: it is given an
// empty directory, and names the directory in it that is to be kept.
func Cached(cache, pattern string, fill func(tmp string) (name string, err error)) (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		user = filepath.Join(os.TempDir(), fmt.Sprintf("cache-%d", os.Getuid()))
	}
	cache = filepath.Join(user, cache)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if have, _ := filepath.Glob(filepath.Join(cache, pattern)); len(have) > 0 {
		return slices.Max(have), nil
	}
	tmp, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	name, err := fill(tmp)
	if err != nil {
		return "", err
	}
	to := filepath.Join(cache, name)
	return to, os.Rename(filepath.Join(tmp, name), to)
}

// Unpack unpacks the packages in dir into the directory name there.
func Unpack(dir, name string) error {
	debs, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	if len(debs) == 0 {
		return fmt.Errorf("apt-get left no packages for %s", name)
	}
	for _, deb := range debs {
		if _, err := Output(dir, "dpkg", "-x", deb, name); err != nil {
			return err
		}
	}
	return nil
}

// Output runs a program in a directory and returns its standard output; its
// error has what the program said.
func Output(dir, name string, args ...string) (string, error) {
	var out, errOut strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(out.String()+errOut.String()))
	}
	return out.String(), nil
}
