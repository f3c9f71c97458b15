package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cbt/internal/audit"
	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/store"
	"cbt/internal/text"
)

// explainDelta says what a path names instead of a delta: f, or what could not be
// opened (err); nil if f may be a damaged delta.
func explainDelta(reads *audit.Reading, path string, f *infile.Input, err error) error {
	if f == nil {
		return notDeltaFile(reads, path, err)
	}
	return notDelta(f, true)
}

// notDelta says what f is instead of a delta; nil if it may be one, if only a
// damaged one. What is called .cbt should be one. strict is for those to whom what
// begins like nothing known is none either.
func notDelta(f *infile.Input, strict bool) error {
	path := f.Path
	if strings.EqualFold(filepath.Ext(path), store.Suffix) {
		return nil
	}
	switch found, err := sniff(f, f.Info.Size); {
	case err != nil || found == formatDelta:
		return nil
	case found == formatQcow2:
		return fail.Usage("%s: is a qcow2 image and no delta: cbt check looks at its structure", text.Printable(path))
	case found != formatRaw:
		return fail.Usage("%s: is %s and no delta", text.Printable(path), withArticle(formatName(found)))
	case guestWritten(f):
		return fail.Usage("%s: is an image and no delta", text.Printable(path))
	case strict:
		return fail.Usage("%s: is no delta: it does not begin like one", text.Printable(path))
	}
	return nil
}

// noDeltas is the error of every command that is to read a directory of deltas and
// finds none in it: the path is wrong, or what was there is gone.
func noDeltas(dir string) error {
	return fmt.Errorf("%s: has no %s files", text.Printable(dir), store.Suffix)
}

// notDeltaFile says what a path names that could not be opened as a delta: a
// directory, a snapshot of an image, a stream of a delta.
func notDeltaFile(reads *audit.Reading, path string, err error) error {
	if st, e := os.Stat(path); e == nil && st.IsDir() {
		return fmt.Errorf("%s: is a directory without deltas: it has no .cbt files that can be read", text.Printable(path))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if other := infile.AddressError(path); other != nil {
		return other
	}
	at := strings.LastIndexByte(path, '@')
	if at <= 0 {
		return err
	}
	f, e := reads.Open(path[:at], nil)
	if e != nil {
		return err
	}
	defer f.Close()
	switch found, _ := sniff(f, f.Info.Size); found {
	case formatQcow2:
		return fail.Usage("%s: is a snapshot of an image and no delta: cbt cat %s >FILE writes its bytes, and so does qemu-img convert -l",
			text.Printable(path), text.Quote(text.PathArgument(path)))
	case formatDelta:
		return fail.Usage("%s: is one stream of a delta, and the whole is named here: %s; NAME=TARGET, as in %s, takes one disk of it",
			text.Printable(path), text.Quote(text.PathArgument(path[:at])), text.Quote(path[at+1:]+"=TARGET"))
	}
	return err
}

// deltaFirst says that a target stands where the delta belongs, and the delta
// where the target does; any other error stays as it is.
func deltaFirst(o *opener, command string, names []string, targets []namedTarget, err error) error {
	if len(names) != 1 || len(targets) != 1 || targets[0].name != "" || names[0] == stdinName {
		return err
	}
	target := targets[0].path
	dir, _, _ := store.SplitRef(target)
	isDelta := dir != "" && !infile.Exists(target)
	if f, e := openFile(target, &o.reads, nil); e == nil {
		found, _ := sniff(f, f.Info.Size)
		isDelta = found == formatDelta
		f.Close()
	}
	if !isDelta {
		return err
	}
	return fail.Usage("%w: the delta comes first: `cbt %s %s %s`", err, command, text.Quote(text.PathArgument(target)), text.Quote(text.PathArgument(names[0])))
}
