package cli

import (
	"context"
	"strings"

	"cbt/internal/fail"
	"cbt/internal/text"
)

// open opens all images. Those of one NAME are one disk; a NEW without an OLD
// is full in this delta.
func (opt *diffOptions) open(ctx context.Context, o *opener, args []string) ([]disk, error) {
	if len(opt.news) == 0 && len(opt.olds) == 0 {
		if states, err := opt.statesOnly(ctx, o, args); states || err != nil {
			return nil, err
		}
		d := disk{name: "0"}
		var err error
		if opt.full {
			d.img, err = o.open(ctx, args[0], opt.fullRef)
			return []disk{d}, err
		}
		// NEW first: an OLD in its backing chain is found there.
		if d.img, err = o.open(ctx, args[1], opt.newRef); err != nil {
			return nil, err
		}
		if d.old, err = o.open(ctx, args[0], opt.oldRef); err == nil && d.old.stream != "" {
			d.name = strings.TrimPrefix(d.old.stream, "disk/")
		}
		return []disk{d}, err
	}
	olds, err := namedRefs("--old", opt.olds)
	if err != nil {
		return nil, err
	}
	news, err := namedRefs("--new", opt.news)
	if err != nil {
		return nil, err
	}
	var disks []disk
	for _, n := range news {
		d := disk{name: n.name}
		if d.img, err = o.open(ctx, n.path, opt.newRef); err != nil {
			return nil, err
		}
		if err := oneImage(disks, d.img, "one run for each"); err != nil {
			return nil, err
		}
		for _, old := range olds {
			if old.name != n.name {
				continue
			}
			if d.old, err = o.open(ctx, old.path, opt.oldRef); err != nil {
				return nil, err
			}
			if d.old.stream != "" && d.old.stream != "disk/"+d.name {
				return nil, fail.Usage("--old %s: is the stream %s, which goes on under its own name", text.Printable(old.name+"="+old.path), text.Printable(d.old.stream))
			}
		}
		disks = append(disks, d)
	}
	for _, old := range olds {
		found := false
		for _, d := range disks {
			found = found || d.name == old.name
		}
		if !found {
			return nil, fail.Usage("--old %s: there is no --new of that name (a disk that is gone is left out)", text.Printable(old.name))
		}
	}
	return disks, nil
}

// namedRefs splits NAME=REF arguments.
func namedRefs(flag string, args []string) ([]namedTarget, error) {
	var list []namedTarget
	for _, arg := range args {
		name, ref, ok := strings.Cut(arg, "=")
		if ok && name != "" && ref == "" {
			return nil, fail.Usage("%s %s: no reference after the =: is a variable unset?", flag, text.Printable(arg))
		}
		if !ok || name == "" {
			return nil, fail.Usage("%s %s: must be NAME=REF", flag, text.Printable(arg))
		}
		for _, l := range list {
			if l.name == name {
				return nil, fail.Usage("%s: the name %s is given twice", flag, text.Printable(name))
			}
		}
		list = append(list, namedTarget{name, ref})
	}
	return list, nil
}
