package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/text"
)

// Names of other files inside an image are somebody else's wish. policy says
// which of them are granted.
type policy struct {
	own   []string // the directories of the image the user named
	allow []string // --allow and CBT_ALLOW
}

// allowDirs resolves --allow, where a missing directory is a mistake, and
// CBT_ALLOW, where it is not.
func allowDirs(flags []string, env string) ([]string, error) {
	var dirs []string
	for _, dir := range flags {
		if clean := filepath.Clean(dir); deviceDir(clean) {
			dirs = append(dirs, clean)
			continue
		}
		real, err := infile.RealPath(dir)
		if err != nil {
			return nil, fail.Usage("--allow: %w", err)
		}
		dirs = append(dirs, real)
	}
	for _, dir := range filepath.SplitList(env) {
		if dir == "" {
			continue // would be the working directory
		}
		if real, err := infile.RealPath(dir); err == nil {
			dirs = append(dirs, real)
		}
	}
	return dirs, nil
}

// ownDirs are the directories that count as the image's own: where it is, and
// where the name that the user gave looks for what stands beside it. A device
// has none, or every disk of the host would stand beside it; and the root
// directory has no "below", or it would be all.
func ownDirs(f *file) []string {
	if f.Info.Block {
		return nil
	}
	dirs := []string{filepath.Dir(f.Real)}
	if real, err := infile.RealPath(filepath.Dir(f.Path)); err == nil && !slices.Contains(dirs, real) {
		dirs = append(dirs, real)
	}
	return dirs
}

func (p policy) permits(real string) bool {
	for _, dir := range p.allow {
		if within(dir, real) {
			return true
		}
	}
	for _, dir := range p.own {
		if within(dir, real) && (filepath.Dir(dir) != dir || filepath.Dir(real) == dir) {
			return true
		}
	}
	return false
}

// within says whether path is in or below dir; both are absolute, with all
// links resolved.
func within(dir, path string) bool {
	if !strings.HasSuffix(dir, string(filepath.Separator)) {
		dir += string(filepath.Separator)
	}
	return filepath.IsAbs(path) && strings.HasPrefix(path, dir)
}

// openNamed opens the file that an image, opened as owner, names as its
// backing or data file (role). All links are resolved and judged before
// anything is opened, and what was opened is judged again.
func (o *opener) openNamed(ctx context.Context, owner *file, role, name string, p policy) (*file, error) {
	path, err := resolveName(owner.Path, role, name)
	if err == nil && role == dataFile {
		path, err = findData(path, name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w (%s names one that stands for it)", owner.Path, err, standInFlag(role, name))
	}
	if f, ok, err := o.openNamedVolume(ctx, owner, role, name, path, p); ok || err != nil {
		return f, err
	}
	refuse := func(real string) error {
		if p.permits(real) {
			return nil
		}
		return fail.Usage("%s: %s %q is outside the image's directory: --allow %s would allow it",
			owner.Path, role, name, text.Quote(filepath.Dir(real)))
	}
	real, err := infile.RealPath(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w (%s)", err, otherWays(role, name))
	}
	if err != nil {
		return nil, namedError(owner, role, name, err)
	}
	if err := refuse(real); err != nil {
		return nil, err
	}
	info, err := os.Lstat(real)
	if err != nil {
		return nil, namedError(owner, role, name, err)
	}
	if err := infile.KindError(real, info.Mode()); err != nil {
		return nil, namedError(owner, role, name, err)
	}
	f, err := openFile(real, &o.reads, refuse)
	if err != nil {
		return nil, err
	}
	f.Path = path // what f names is relative to the name it was found by
	return f, nil
}

// otherWays says how to read an image without the file that it names.
func otherWays(role, name string) string {
	ways := standInFlag(role, name) + " names one that stands for it"
	if role == backingFile {
		ways += ", --backing none does without"
	}
	return ways
}

func namedError(owner *file, role, name string, err error) error {
	return fmt.Errorf("%s: %s %q: %w", owner.Path, role, name, err)
}

// resolveName turns the name of a backing or data file inside an image into a
// path, as QEMU does: relative to the directory part of the path that opened
// the image, links not resolved; a name after "file:" relative to the working
// directory. Anything else with a protocol is refused, data files' included:
// QEMU takes those as plain names.
func resolveName(imagePath, role, name string) (string, error) {
	rest, isFile := strings.CutPrefix(name, "file:")
	switch {
	case isFile && role == backingFile && rest != "":
		return rest, nil
	case name == "" || strings.ContainsRune(name, 0):
		return "", fmt.Errorf("%s %q is no file name", role, name)
	case strings.HasPrefix(name, "json:"):
		return "", fmt.Errorf("%s %q is a json: description, which is never followed", role, name)
	case hasProtocol(name):
		return "", fmt.Errorf("%s %q is a protocol name, which is never followed", role, name)
	case filepath.IsAbs(name):
		return name, nil
	}
	dir, _ := filepath.Split(imagePath)
	return dir + name, nil
}

// findData decides where a data file is. beside is where its name leads from
// the image's directory, but QEMU takes a relative name from the directory it
// runs in: if that is another file, nothing tells which one is meant.
func findData(beside, name string) (string, error) {
	there, err := os.Stat(beside)
	here, err2 := os.Stat(name)
	switch {
	case err2 != nil:
		return beside, nil
	case err != nil:
		return name, nil
	case !os.SameFile(there, here):
		return "", fail.Usage("%s %q may be %s or the one in the working directory, which QEMU takes: run cbt in the directory that is meant", dataFile, name, beside)
	}
	return beside, nil
}

// What one image calls another.
const (
	backingFile = "backing file"
	dataFile    = "data file"
)

// hasProtocol is QEMU's rule: a colon before the first slash.
func hasProtocol(name string) bool {
	i := strings.IndexAny(name, ":/")
	return i >= 0 && name[i] == ':' && filepath.VolumeName(name) == ""
}
