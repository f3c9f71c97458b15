package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"cbt/internal/fail"
	"cbt/internal/text"
	"cbt/internal/tree"
)

// machine is the tree of --together: each REF is one state of one disk, and all
// of them are of one instant, or the user would not say so.
func (m *mounting) machine(refs []string) (*tree.Dir, error) {
	all := &instant{m: m, name: strings.Join(refs, " ")}
	var named []tree.Named
	for n, ref := range refs {
		before := len(m.shown)
		_, name, err := m.ref(ref)
		if err != nil {
			return nil, err
		}
		states := m.shown[before:]
		if len(states) > 1 && states[0].active && m.opt.ref.Snapshot == "" {
			states = states[:1] // an image without @ is its active state
		}
		if len(states) != 1 || len(states[0].disks) > 1 {
			return nil, fail.Usage("%s: --together needs one state of one disk: name a snapshot or a delta", text.Printable(ref))
		}
		i := states[0]
		if all.ram == nil {
			all.ram = i.ram
		} else if i.ram != nil {
			return nil, fail.Usage("%s: has RAM, and so has another of the REFs", text.Printable(ref))
		}
		if i.time.After(all.time) {
			all.time = i.time
		}
		for _, d := range i.disks {
			name = strings.TrimSuffix(name, filepath.Ext(name))
			all.disks = append(all.disks, d)
			named = append(named, tree.Named{Name: name, ID: fmt.Sprint(n + 1)})
		}
	}
	for n, name := range tree.Names(named, "") {
		all.disks[n].name = name
	}
	if len(all.disks) == 1 {
		all.disks[0].name = onlyDisk
	}
	m.shown = nil
	d := all.dir()
	if err := m.overlayFile(); err != nil {
		return nil, err
	}
	return one("", activeDir, all.time, d), nil
}
