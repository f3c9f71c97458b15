package testvm

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// bootModules are loaded before the agent runs, in this order; lazyModules
// when the kernel, or a test, asks modprobe for them (some measure for a
// second which of their algorithms is fastest).
var (
	bootModules = []string{"virtio_pci", "virtio_blk", "virtio_console", "dm_mod", "loop"}
	lazyModules = []string{
		"dm_thin_pool", "dm_snapshot", "dm_mirror", "dm_log_userspace", "dm_raid", "dm_era", "dm_flakey", "dm_delay", "dm_zero", "dm_cache",
		"dm_cache_smq", "dm_writecache", "dm_integrity", "raid0", "raid1", "raid10", "raid456",
		"xfs", "virtio_rng", "virtio_scsi", "sd_mod", "crc32c_generic", "crc32c_intel", "nbd", "fuse",
	}
)

// moduleTree is the modules of one kernel, by names with "_" for "-".
type moduleTree struct {
	files map[string]string // path on this machine
	infos map[string]moduleInfo
}

type moduleInfo struct {
	depends, aliases []string
}

func readModules(dir string) (*moduleTree, error) {
	t := &moduleTree{map[string]string{}, map[string]moduleInfo{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if name, _, ok := strings.Cut(filepath.Base(path), ".ko"); ok && err == nil && d.Type().IsRegular() {
			t.files[plain(name)] = path
		}
		return err
	})
	if err == nil && len(t.files) == 0 {
		err = fmt.Errorf("%s: no kernel modules", dir)
	}
	return t, err
}

// plain is the spelling that the kernel makes of a module's name.
func plain(name string) string { return strings.ReplaceAll(name, "-", "_") }

// content is a module as the kernel loads it. Some distributions compress them.
func (t *moduleTree) content(name string) ([]byte, error) {
	path := t.files[name]
	switch filepath.Ext(path) {
	case ".xz":
		return exec.Command("xz", "-dc", path).Output()
	case ".zst":
		return exec.Command("zstd", "-dcq", path).Output()
	}
	return os.ReadFile(path)
}

// order lists a module after all it depends on, and nothing for what is no
// module: some kernels have it built in.
func (t *moduleTree) order(name string) ([]string, error) {
	name = plain(name)
	if t.files[name] == "" {
		return nil, nil
	}
	info, ok := t.infos[name]
	if !ok {
		b, err := t.content(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.files[name], err)
		}
		if info, err = parseModule(b); err != nil {
			return nil, fmt.Errorf("%s: %w", t.files[name], err)
		}
		t.infos[name] = info
	}
	var all []string
	for _, d := range info.depends {
		below, err := t.order(d)
		if err != nil {
			return nil, err
		}
		all = append(all, below...)
	}
	all = append(all, name)
	first := map[string]bool{}
	return slices.DeleteFunc(all, func(m string) bool {
		again := first[m]
		first[m] = true
		return again
	}), nil
}

// parseModule reads section .modinfo: strings "key=value" with a NUL after each.
func parseModule(b []byte) (moduleInfo, error) {
	var info moduleInfo
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return info, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return info, fmt.Errorf("no section .modinfo")
	}
	data, err := section.Data()
	if err != nil {
		return info, err
	}
	for _, line := range strings.Split(string(data), "\x00") {
		key, value, _ := strings.Cut(line, "=")
		switch {
		case value == "":
		case key == "alias":
			info.aliases = append(info.aliases, plain(value))
		case key == "depends":
			info.depends = append(info.depends, strings.Split(value, ",")...)
		case key == "softdep" && strings.HasPrefix(value, "pre: "):
			info.depends = append(info.depends, strings.Fields(value)[1:]...)
		}
	}
	return info, nil
}
