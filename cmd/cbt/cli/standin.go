package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/pflag"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/text"
)

// An image that was carried away names files that are not where it is now, or
// are no files at all. standIns are what the user says stands for them: the
// values of --backing and --data-file.
type standIns struct {
	backing []string // NAME=FILE
	data    []string // FILE or NAME=FILE
	none    bool     // --backing none: backing files that nothing stands for are left out

	mu     sync.Mutex
	used   map[string]string // where a value's name led in the image that it was used for
	looked bool              // a name was looked for
	failed bool              // a value was refused, which is said then
}

// noBacking is the value of --backing that leaves backing files out.
const noBacking = "none"

func (o *openerOptions) addStandInFlags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.Backing, "backing", nil, "`NAME=FILE`: FILE stands for the backing file that an image calls NAME; or none: leave backing files out, what they have is unknown (repeatable)")
	fs.StringArrayVar(&o.DataFile, "data-file", nil, "`FILE` stands for the external data file; NAME=FILE: for the one that an image calls NAME (repeatable)")
}

// standIns reads the values of the flags. All openers of a run that have them
// share one.
func (a *app) standIns(opt openerOptions) (*standIns, error) {
	s := &standIns{used: map[string]string{}, data: opt.DataFile}
	if len(opt.Backing)+len(opt.DataFile) == 0 {
		return s, nil
	}
	if a.stand != nil {
		return a.stand, nil
	}
	for _, v := range opt.Backing {
		switch {
		case v == noBacking:
			s.none = true
		case strings.Contains(v, "="):
			s.backing = append(s.backing, v)
		default:
			return nil, fail.Usage("--backing %s: is NAME=FILE, or none", text.Quote(v))
		}
	}
	for _, v := range opt.DataFile {
		if v == "" {
			return nil, fail.Usage("--data-file: is empty: is a variable unset?")
		}
	}
	a.stand = s
	return s, nil
}

// find returns the file that stands for name, which the image opened as owner
// calls its backing or data file (role).
func (s *standIns) find(owner *file, role, name string) (path string, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked = true
	defer func() { s.failed = s.failed || err != nil }()
	values, flag := s.backing, "--backing"
	if role == dataFile {
		values, flag = s.data, "--data-file"
	}
	value, found := "", 0
	for _, v := range values {
		if rest, is := strings.CutPrefix(v, name+"="); is && name != "" {
			value, path = v, rest
			found++
		}
	}
	if found == 0 && role == dataFile {
		for _, v := range values {
			if infile.Exists(v) || !strings.Contains(v, "=") {
				value, path = v, v
				found++
			}
		}
	}
	switch {
	case found == 0:
		return "", false, nil
	case found > 1:
		return "", false, fail.Usage("%s: several %s say what stands for its %s %q", owner.Path, flag, role, name)
	case path == "":
		return "", false, fail.Usage("%s %s: no file after the =", flag, text.Quote(value))
	}
	// One name may mean two files in images of different directories, and then
	// one file cannot stand for both.
	leads := name
	if role == dataFile && value == path {
		leads = owner.Real // a file without a name stands for one image's
	} else if !filepath.IsAbs(name) && !hasProtocol(name) {
		leads = filepath.Join(filepath.Dir(owner.Real), name)
	}
	key := flag + " " + value
	if before, is := s.used[key]; is && before != leads {
		return "", false, fail.Usage("%s: %s %q: %s stands already for %s, which is another one", owner.Path, role, name, key, before)
	}
	s.used[key] = leads
	return path, true, nil
}

// unused are the flags that no image had a name for.
func (s *standIns) unused() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for flag, values := range map[string][]string{"--backing": s.backing, "--data-file": s.data} {
		for _, v := range values {
			if _, is := s.used[flag+" "+v]; !is && s.looked && !s.failed {
				list = append(list, flag+" "+text.Quote(v))
			}
		}
	}
	return list
}

// standInFlag is the flag that says what stands for a name.
func standInFlag(role, name string) string {
	flag := "--backing "
	if role == dataFile {
		flag = "--data-file "
	}
	if name == "" {
		return flag + "FILE"
	}
	return flag + text.Quote(name+"=") + "FILE"
}

// refuseUnknown refuses to read a range of which some bytes are not known, as
// their backing file was left out, before any of it is read.
func refuseUnknown(ctx context.Context, src *source, off, n int64) error {
	top := src.img
	for ; top != nil && !top.leftOut; top = top.backing {
	}
	if top == nil {
		return nil
	}
	for m, err := range rowsUntil(ctx, mapRows(src, off, n)) {
		if err != nil {
			return fmt.Errorf("%s: %w", src.Ref, err)
		}
		if m.Unknown {
			return fail.WrongBase("%s: %d bytes at offset %d are unknown: they are in %s %q, which --backing none leaves out (cbt map shows what is known)",
				src.Ref, m.Length, m.Start, backingFile, top.backingName)
		}
	}
	return nil
}
