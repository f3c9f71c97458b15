package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/text"
	"cbt/qcow2"
)

// refOptions is what flags say about one reference.
type refOptions struct {
	Snapshot   string // --snapshot: a name that "@" could not hold
	SnapshotID string // --snapshot-id
	Format     string // --format
	Path       bool   // --path: the reference is a path, whatever "@" it holds

	state  bool   // what is named may be a saved machine state as a whole
	prefix string // of the flags' names: "", "old-", "new-"
}

// addFlags registers the flags of one reference: --snapshot, --snapshot-id and
// --path, with prefix "old-" --old-snapshot and so on. which says in the help
// whose they are: "REF", "OLD". Where prefix is empty, --format comes with
// openerOptions.
func (o *refOptions) addFlags(fs *pflag.FlagSet, prefix, which string) {
	o.prefix = prefix
	fs.StringVar(&o.Snapshot, prefix+"snapshot", "", "internal snapshot `NAME` of "+which)
	fs.StringVar(&o.SnapshotID, prefix+"snapshot-id", "", "internal snapshot of "+which+" by its `ID`")
	o.addPathFlag(fs, which)
	if prefix != "" {
		fs.StringVar(&o.Format, prefix+"format", "", "`FORMAT` of "+which+": qcow2, raw or state")
	}
}

func (o *refOptions) addPathFlag(fs *pflag.FlagSet, which string) {
	fs.BoolVar(&o.Path, o.prefix+"path", false, which+" is a path as it stands, no PATH@SNAPSHOT")
}

func (o *refOptions) flag(name string) string { return "--" + o.prefix + name }

// reference is what a REF means: a file and, perhaps, a snapshot in it.
type reference struct {
	path   string
	byName bool // want is a snapshot's name
	byID   bool // want is a snapshot's ID
	want   string
}

func (r reference) String() string {
	switch {
	case r.byName:
		return r.path + "@" + r.want
	case r.byID:
		return r.path + " snapshot id " + r.want
	}
	return r.path
}

// refPrefixes are what names no file, and what it stands for; volume_ref.go
// has what they mean.
var refPrefixes = map[string]string{
	lvmPrefix:  "a logical volume",
	thinPrefix: "a device of a thin pool",
}

// parseRef finds out what ref means: an existing path is that file, anything
// else is split at its last "@". has says whether the file of that path has a
// snapshot of that name, for references that could mean both.
func parseRef(ref string, opt refOptions, has func(path, name string) bool) (reference, error) {
	for prefix, what := range refPrefixes {
		if strings.HasPrefix(ref, prefix) {
			return reference{}, fail.Usage("%s: is %s, which cannot be named here (a file of that name is %s)", ref, what, text.Quote("./"+ref))
		}
	}
	switch {
	case ref == "":
		return reference{}, fail.Usage("a reference is empty: is a variable unset?")
	case opt.Snapshot != "" && opt.SnapshotID != "":
		return reference{}, fail.Usage("%s and %s exclude each other", opt.flag("snapshot"), opt.flag("snapshot-id"))
	case opt.Snapshot != "":
		return reference{path: ref, byName: true, want: opt.Snapshot}, nil
	case opt.SnapshotID != "":
		return reference{path: ref, byID: true, want: opt.SnapshotID}, nil
	case opt.Path:
		return reference{path: ref}, nil
	}
	if err := infile.AddressError(ref); err != nil {
		return reference{}, err
	}
	at := strings.LastIndexByte(ref, '@')
	if at <= 0 {
		return reference{path: ref}, nil
	}
	path, name := ref[:at], ref[at+1:]
	split := infile.Exists(path)
	switch {
	case infile.Exists(ref) && split && has(path, name):
		return reference{}, fail.Usage("%s: may be the file of that name (%s), or snapshot %s of %s (%s %s)",
			ref, opt.flag("path"), text.Printable(name), path, opt.flag("snapshot"), text.Quote(name))
	case infile.Exists(ref):
		return reference{path: ref}, nil
	case !split:
		return reference{}, fmt.Errorf("%s: no such file, and no file %s that could have a snapshot %s (a name that holds @ goes with %s)",
			ref, path, text.Printable(name), opt.flag("snapshot"))
	case name == "":
		return reference{}, fail.Usage("%s: no snapshot name after the @", ref)
	}
	return reference{path: path, byName: true, want: name}, nil
}

// find returns the place of the snapshot that r means in the table.
func (r reference) find(table []qcow2.Snapshot, opt refOptions) (int, error) {
	var fits, other []int
	for i, s := range table {
		switch {
		case r.byName && s.Name == r.want, r.byID && s.ID == r.want:
			fits = append(fits, i)
		case r.byName && s.ID == r.want:
			other = append(other, i)
		}
	}
	switch {
	case len(fits) == 1:
		return fits[0], nil
	case len(fits) > 1 && r.byName:
		return 0, fail.Usage("%s: %d snapshots have the name %s: choose with %s: %s",
			r.path, len(fits), text.Printable(r.want), opt.flag("snapshot-id"), listSnapshots(table, fits))
	case len(fits) > 1:
		return 0, fmt.Errorf("%s: %d snapshots have the id %s: the image is damaged", r.path, len(fits), text.Printable(r.want))
	case len(other) > 0:
		return 0, fail.Usage("%s: no snapshot has the name %s, but one has that id: %s %s", r.path, text.Printable(r.want), opt.flag("snapshot-id"), text.Quote(r.want))
	case len(table) == 0:
		return 0, fmt.Errorf("%s: has no snapshots, so none called %s", r.path, text.Printable(r.want))
	}
	all := make([]int, len(table))
	for i := range all {
		all[i] = i
	}
	return 0, fmt.Errorf("%s: no snapshot %s%s; there are: %s", r.path, text.Printable(r.want), meant(r.want, table), listSnapshots(table, all))
}

// meant asks for the snapshots whose names are near one that is not there.
func meant(want string, table []qcow2.Snapshot) string {
	const most = 3
	var names []string
	for _, s := range table {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	list := near(want, slices.Compact(names))
	if len(list) == 0 || len(list) > most {
		return ""
	}
	return fmt.Sprintf(": did you mean %s?", strings.Join(printableAll(list), " or "))
}

// listSnapshots describes the snapshots at the given places; of too many, the newest, these first.
func listSnapshots(table []qcow2.Snapshot, places []int) string {
	const most = 10
	var list []string
	if len(places) > most {
		places = slices.Clone(places)
		slices.Reverse(places) // of one second, the last in the table
		slices.SortStableFunc(places, func(i, k int) int { return table[k].Date.Compare(table[i].Date) })
	}
	for n, i := range places {
		if n == most {
			list = append(list, fmt.Sprintf("and %d older (`cbt info` lists them)", len(places)-n))
			break
		}
		s := table[i]
		list = append(list, fmt.Sprintf("id %s %s of %s", text.Quote(s.ID), text.Quote(s.Name), s.Date.Format(text.TimeLayout)))
	}
	return strings.Join(list, ", ")
}

// parse finds out what ref means, which may be a delta of a directory.
func (o *opener) parse(ref string, opt refOptions) (reference, error) {
	if opt.Path {
		return parseRef(ref, opt, o.hasSnapshot)
	}
	real, err := o.Resolve(ref)
	if err != nil {
		return reference{}, err
	}
	return parseRef(real, opt, o.hasSnapshot)
}
