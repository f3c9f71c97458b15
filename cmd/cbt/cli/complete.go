package cli

import (
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cbt/cbt"
	"cbt/internal/audit"
	"cbt/internal/deltaref"
	"cbt/internal/infile"
	"cbt/internal/report"
	"cbt/internal/store"
	"cbt/qcow2"
	"cbt/sparse"
)

// What a shell offers when somebody presses the tabulator key. The scripts of cobra
// evaluate what they are given, so a name out of an image or delta is only offered if
// no shell finds a meaning in it.

// flagWords are what flags take, by their names.
var flagWords = map[string][]string{
	"method":         {methodAuto, methodTables, methodOverlay, methodThin, methodThick, methodBitmap, methodContent},
	"refine":         {"on", "off"},
	"ram":            {ramAuto, ramNo, ramOnly},
	"consistency":    {string(cbt.Crash), string(cbt.Filesystem), string(cbt.Application)},
	"format":         {formatQcow2, formatRaw, formatState},
	"old-format":     {formatQcow2, formatRaw, formatState},
	"new-format":     {formatQcow2, formatRaw, formatState},
	"pv-format":      {formatQcow2, formatRaw},
	"backing-format": {formatQcow2, formatRaw},
	"target-format":  {formatRaw, formatQcow2},
	"state-format":   {stateAsStream, stateAsLibvirt, stateAsMapped},
	"algo":           {"md5", "sha1", "sha256", "sha512"},
	"hash":           {"before", "after", "both"},
	"spot-check":     {"64M", "1G", "off"},
	"rebase-every":   {"30d", "7d", "0"},
}

// commandFlagWords are those of one command, where others mean something else.
var commandFlagWords = map[string][]string{
	"ram dump --format":     {dumpELF, dumpRaw, dumpBlocks},
	"backup --ram":          {ramAuto, ramNo},
	"apply --target-format": {formatRaw},
}

// directoryFlags take a directory.
var directoryFlags = []string{"allow", "chain", "spool-dir", "state-dir", "salvage-to"}

// directoryCommands have directories alone as arguments.
var directoryCommands = []string{"prune", "log", "umount", "man"}

// addCompletion says for a command and all below it what its arguments and flags may be.
func (a *app) addCompletion(c *cobra.Command) {
	name := strings.TrimPrefix(c.CommandPath(), "cbt ")
	switch {
	case slices.Contains(directoryCommands, name):
		c.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		}
	case c.HasParent() && !c.HasSubCommands() && c.ValidArgs == nil && c.Args != nil:
		c.ValidArgsFunction = func(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
			return a.completeRef(word)
		}
	}
	add := func(flag string, complete cobra.CompletionFunc) {
		if c.LocalFlags().Lookup(flag) != nil {
			_ = c.RegisterFlagCompletionFunc(flag, complete) // fails only where there is no such flag
		}
	}
	for flag, words := range flagWords {
		if own := commandFlagWords[name+" --"+flag]; own != nil {
			words = own
		}
		add(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	}
	for _, flag := range directoryFlags {
		add(flag, cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs))
	}
	for _, flag := range []string{"against", "base", "old-state", "new-state", "pv", "thin-metadata", "thin-data"} {
		add(flag, func(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
			return a.completeRef(word)
		})
	}
	for _, prefix := range []string{"", "old-", "new-"} {
		of := func(args []string) string { // whose snapshots they are
			switch {
			case len(args) == 0:
				return ""
			case prefix == "new-" && len(args) > 1:
				return args[1]
			}
			return args[0]
		}
		add(prefix+"snapshot", func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			names, _ := a.snapshotWords(of(args))
			return names, cobra.ShellCompDirectiveNoFileComp
		})
		add(prefix+"snapshot-id", func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			_, ids := a.snapshotWords(of(args))
			return ids, cobra.ShellCompDirectiveNoFileComp
		})
	}
	for _, sub := range c.Commands() {
		a.addCompletion(sub)
	}
}

// completeRef offers what may follow the @ of a reference: snapshots, points of a
// directory, the streams of a delta. Anything else is a file.
func (a *app) completeRef(word string) (list []string, _ cobra.ShellCompDirective) {
	at := strings.LastIndexByte(word, '@')
	if at <= 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	path := word[:at]
	if name, rest, ok := strings.Cut(path, "="); ok && !infile.Exists(path) && !strings.ContainsAny(name, "./") {
		path = rest // NAME=REF
	}
	if !infile.Exists(path) {
		return nil, cobra.ShellCompDirectiveDefault
	}
	names, _ := a.snapshotWords(path)
	names = append(names, a.deltaWords(path)...)
	for _, name := range names {
		list = append(list, word[:at+1]+name)
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

// harmless are words in which no shell finds a meaning.
var harmless = regexp.MustCompile(`^[A-Za-z0-9_.+/:%,][A-Za-z0-9_.+/:%,-]*$`)

func onlyHarmless(words []string) []string {
	return slices.DeleteFunc(words, func(w string) bool { return !harmless.MatchString(w) })
}

// snapshotWords are the names and IDs of the snapshots of a qcow2 image; none if it is no
// such image. It reads the header and the table alone, and follows no name in it.
func (a *app) snapshotWords(path string) (names, ids []string) {
	if path == "" {
		return nil, nil
	}
	reads := audit.Reading{Audit: a.audit}
	f, err := openFile(path, &reads, nil)
	if err != nil {
		return nil, nil
	}
	defer f.Close()
	if head, err := readHead(f, 4); err != nil || string(head) != "QFI\xfb" {
		return nil, nil
	}
	img, err := qcow2.Open(f, f.Info.Size, qcow2.Options{
		Backing: func(string, string) (sparse.View, error) { return sparse.Missing("backing files"), nil },
		Data: func(string) (io.ReaderAt, int64, error) {
			return nil, 0, errors.New("not read here")
		},
		AllowCorrupt: true, AllowEncrypted: true,
	})
	if err != nil {
		return nil, nil
	}
	for _, s := range img.Snapshots() {
		names, ids = append(names, s.Name), append(ids, s.ID)
	}
	return onlyHarmless(names), onlyHarmless(ids)
}

// deltaWords are what may follow DIR@ or DELTA@.
func (a *app) deltaWords(path string) (words []string) {
	o := &opener{Reporter: report.None{}}
	o.Files = store.NewFiles(&o.reads, report.None{}, explainDelta)
	o.reads.Audit = a.audit
	defer o.Close()
	if names, err := store.Names(path); err == nil && len(names) > 0 {
		_, all, err := o.DeltasToChoose(path)
		if err != nil {
			return nil
		}
		machines := map[int]string{}
		for _, d := range all {
			if len(d.Names) > 0 {
				machines[d.Machine] = d.Names[0]
			}
			words = append(words, strings.TrimSuffix(d.File, store.Suffix))
		}
		if len(machines) < 2 {
			return onlyHarmless(append(words, deltaref.Latest))
		}
		for _, name := range machines {
			words = append(words, name+"/"+deltaref.Latest)
		}
		return onlyHarmless(words)
	}
	if !strings.HasSuffix(path, store.Suffix) {
		return nil
	}
	if d, err := o.OpenDelta(path); err == nil {
		for _, s := range d.Header.Streams {
			words = append(words, strings.TrimPrefix(s.Name, "disk/"))
		}
	}
	return onlyHarmless(words)
}
