package testdeb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Backports gives a directory with these packages of the suite, or of its
// backports where they have newer ones, and all that these need and this machine
// lacks or has too old. The packages come from where apt gets Debian's on this
// machine; apt's own lists and cache stay as they are.
func Backports(name string, packages ...string) (string, error) {
	return Cached("cbt-backports", name, func(tmp string) (string, error) {
		sources, suite, err := sources()
		if err != nil {
			return "", err
		}
		lists := filepath.Join(tmp, "lists")
		for _, dir := range []string{filepath.Join(lists, "partial"), filepath.Join(tmp, "partial")} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return "", err
			}
		}
		list := filepath.Join(tmp, "sources.list")
		if err := os.WriteFile(list, []byte(sources), 0o644); err != nil {
			return "", err
		}
		options := []string{
			"-qq", "-o", "Dir::Etc::sourcelist=" + list, "-o", "Dir::Etc::sourceparts=-",
			"-o", "Dir::State::lists=" + lists, "-o", "Dir::Cache=" + tmp, "-o", "Dir::Cache::archives=" + tmp,
			"-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false", "-o", "Acquire::Languages=none",
			// Root's directories may be closed to apt's own user, and other users may not lock the system's.
			"-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1",
		}
		if _, err := Output(tmp, "apt-get", append(options, "-o", "APT::Update::Error-Mode=any", "update")...); err != nil {
			return "", err
		}
		options = append(options, "-y", "-t", suite, "--no-install-recommends", "--reinstall", "--download-only", "install")
		if _, err := Output(tmp, "apt-get", append(options, packages...)...); err != nil {
			return "", err
		}
		return name, Unpack(tmp, name)
	})
}

// sources is an apt sources list of this machine's Debian with its backports,
// and the name of their suite.
func sources() (list, suite string, err error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", "", err
	}
	codename := ""
	for line := range strings.Lines(string(release)) {
		if value, ok := strings.CutPrefix(line, "VERSION_CODENAME="); ok {
			codename = strings.Trim(value, "\"\n")
		}
	}
	if codename == "" {
		return "", "", errors.New("/etc/os-release names no VERSION_CODENAME")
	}
	known, err := targets()
	if known == "" && err == nil && os.Getuid() == 0 {
		// A fresh container has no package lists.
		if _, err = Output("", "apt-get", "update", "-qq"); err == nil {
			known, err = targets()
		}
	}
	if err != nil {
		return "", "", err
	}
	if list = withBackports(known, codename); list == "" {
		return "", "", fmt.Errorf("apt has no source of Debian %s", codename)
	}
	return list, codename + "-backports", nil
}

// targets lists Debian's parts of this machine's sources: where, suite,
// component and codename of each.
func targets() (string, error) {
	return Output("", "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(CODENAME)", "Created-By: Packages", "Origin: Debian")
}

// keyring has Debian's keys. Not every release has apt trust them unasked.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// withBackports makes a sources list of targets and of the backports where the
// suite itself is. It is empty if the suite is not there.
func withBackports(targets, codename string) string {
	options := ""
	if _, err := os.Stat(keyring); err == nil {
		options = "[signed-by=" + keyring + "] "
	}
	var list []string
	found := false
	add := func(uri, suite, component string) {
		if line := fmt.Sprintf("deb %s%s %s %s\n", options, uri, suite, component); !slices.Contains(list, line) {
			list = append(list, line)
		}
	}
	for line := range strings.Lines(targets) {
		f := strings.Fields(line)
		if len(f) != 4 {
			continue
		}
		add(f[0], f[1], f[2])
		if f[3] == codename {
			add(f[0], codename+"-backports", f[2])
			found = true
		}
	}
	if !found {
		return ""
	}
	return strings.Join(list, "")
}
