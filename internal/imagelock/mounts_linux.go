package imagelock

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// mounted looks in the tables of mounts of this process and, if there is
// nothing in it, of one process of each other mount namespace.
func (h host) mounted(id identity) ([]use, error) {
	text, err := os.ReadFile(filepath.Join(h.proc, "self/mountinfo"))
	if err != nil {
		return nil, err
	}
	if u, ok := mountOf(id, string(text), ""); ok {
		return []use{u}, nil
	}
	processes, err := os.ReadDir(h.proc)
	if err != nil {
		return nil, err
	}
	own, _ := os.Readlink(filepath.Join(h.proc, "self/ns/mnt"))
	seen := map[string]bool{own: true}
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		// Processes end at any time, and those of others may be hidden.
		dir := filepath.Join(h.proc, p.Name())
		namespace, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
		if err != nil || seen[namespace] {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, "mountinfo"))
		if err != nil {
			continue
		}
		seen[namespace] = true
		if u, ok := mountOf(id, string(text), filepath.Join(dir, "root")); ok {
			u.by += " in the mount namespace of process " + p.Name()
			u.end = "nsenter -t " + p.Name() + " -m " + u.end
			return []use{u}, nil
		}
	}
	return nil, nil
}

// mountOf looks in a mountinfo (proc(5)): "36 35 98:0 /root /mnt rw - ext3
// /dev/root rw", with any number of further fields before the hyphen. Where a
// filesystem has a made-up device number, as btrfs has, its source tells, a
// path below root. What comes last is said of the filesystem, wherever else it
// is mounted; the options before the hyphen are those of one mount of it.
func mountOf(id identity, mountinfo, root string) (use, bool) {
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		hyphen := slices.Index(fields, "-")
		if hyphen < 6 || len(fields) < hyphen+3 {
			continue
		}
		source := unescape(fields[hyphen+2])
		byNumber := id.device && fields[2] == id.number()
		bySource := strings.HasPrefix(fields[2], "0:") && strings.HasPrefix(source, "/") && id.named(root+source)
		if !byNumber && !bySource {
			continue
		}
		at := unescape(fields[4])
		u := use{by: "mounted at " + at, end: "umount " + quote(at)}
		if len(fields) > hyphen+3 {
			u.readOnly = slices.Contains(strings.Split(fields[hyphen+3], ","), "ro")
		}
		return u, true
	}
	return use{}, false
}

// unescape undoes what the kernel does to blanks and backslashes in paths.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// quote quotes a path for a shell, if it needs that.
func quote(path string) string {
	odd := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+,:@%=", r))
	}
	if !strings.ContainsFunc(path, odd) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
