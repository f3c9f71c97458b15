package cli

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"cbt/cbt"
	"cbt/internal/fsys"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/lvm"
	"cbt/sparse"
)

// level is what a delta's consistency means. docs/consistency.md says more.
type level struct {
	brief string // for a line of log
	long  string // what it is worth, for a message
}

var levels = map[cbt.Consistency]level{
	cbt.Crash: {"as after a power cut",
		"as after a power cut: journals have to be replayed, and programs begin as after a crash"},
	cbt.Filesystem: {"file systems frozen",
		"with its file systems frozen, as --consistency said: they are whole as they are, and programs begin as after a crash"},
	cbt.Application: {"programs told before",
		"of an instant that programs had prepared for, as --consistency said"},
	cbt.Full: {"with the RAM",
		"with the RAM of the same instant: the machine goes on from there; its disks alone are as after a power cut"},
}

// levelOrder is from the least to the most.
var levelOrder = []cbt.Consistency{cbt.Crash, cbt.Filesystem, cbt.Application, cbt.Full}

func briefLevel(consistency string) string { return levels[cbt.Consistency(consistency)].brief }

// addConsistencyFlag is for the commands that make deltas of images.
func (opt *diffOptions) addConsistencyFlag(flags *pflag.FlagSet) {
	flags.StringVar(&opt.consistency, "consistency", string(cbt.Crash), "`LEVEL`: crash, filesystem or application: what the snapshot was told to be")
}

// consistency is that of the delta that s is the state after; empty: s is another image.
func (s *source) consistency() cbt.Consistency {
	if s.chain == nil {
		return ""
	}
	return s.chain.delta.Header.Consistency
}

// sayLevel says what the state after a delta is worth.
func (a *app) sayLevel(name string, c cbt.Consistency) {
	if l, ok := levels[c]; ok {
		a.Notef("%s: %s", text.Printable(name), l.long)
	}
}

// sayLevels counts the levels of several deltas.
func (a *app) sayLevels(dir string, list []*store.Entry) {
	var parts []string
	for _, c := range levelOrder {
		n := 0
		for _, l := range list {
			if l.Consistency == string(c) {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s (%s)", text.Count(n, "point"), levels[c].brief))
		}
	}
	if len(parts) > 0 {
		a.Notef("%s: %s", text.Printable(dir), strings.Join(parts, ", "))
	}
}

// checkConsistency looks whether --consistency says more than the file systems on
// the disks do. Then it warns, and the delta is called crash: whoever restores it
// goes by that. It is cheap and proves nothing else: what programs had not
// written nobody sees on a disk.
func (a *app) checkConsistency(ctx context.Context, disks []disk, opt *diffOptions) error {
	said := cbt.Consistency(opt.consistency)
	if slices.ContainsFunc(disks, func(d disk) bool { return d.ram }) {
		if opt.labelled {
			a.Notef("--consistency %s: the delta is called %s, because it has the machine's RAM", said, cbt.Full)
		}
		return nil
	}
	if said == cbt.Crash {
		return nil
	}
	pending := func(on string, r io.ReaderAt, size int64) error {
		list, err := fsys.Find(r, size)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil { // what cannot be read is not for a look at labels to say
			a.Debugf("%s: file systems: %v", on, err)
		}
		for _, s := range list {
			if s.State == fsys.Pending {
				a.Warnf("%s: %s was not frozen: %s: --consistency %s says more than is true, so the delta is called %s", text.Printable(on), s.Name(), s.Why, said, cbt.Crash)
				opt.consistency = string(cbt.Crash)
			}
		}
		return nil
	}
	for _, d := range disks {
		if err := pending(d.img.Ref, d.img.View, d.img.View.Size()); err != nil {
			return err
		}
	}
	for on, v := range a.volumesOn(disks) {
		if err := pending(on, v, v.Size()); err != nil {
			return err
		}
	}
	return nil
}

// volumesOn are the logical volumes on the disks of a machine, as far as they can
// be opened, and what to call them.
func (a *app) volumesOn(disks []disk) iter.Seq2[string, sparse.View] {
	return func(yield func(string, sparse.View) bool) {
		var pvs []lvm.Disk
		for _, d := range disks {
			found, _, err := pvsOn(d.img.Ref, d.img.View, a.Debugf)
			if err != nil { // most often: no partition table
				a.Debugf("physical volumes: %v", err)
			}
			pvs = append(pvs, found...)
		}
		groups, err := lvm.Assemble(pvs)
		if err != nil {
			a.Debugf("volume groups: %v", err)
			return
		}
		for _, g := range groups {
			for _, lv := range g.LVs {
				if !lv.Visible() {
					continue
				}
				v, err := g.Open(lv.Name, lvm.OpenOptions{})
				if err != nil {
					a.Debugf("%s: %v", lv.FullName(), err)
					continue
				}
				if !yield(disks[0].img.Ref+": volume "+lv.FullName(), v) {
					return
				}
			}
		}
	}
}
