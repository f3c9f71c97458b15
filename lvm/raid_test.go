package lvm

import "testing"

// Every layout, as a kernel wrote and read it.
func TestRAID(t *testing.T) {
	g := assemble(t, disks(t, "raid")...)
	types := map[string]bool{}
	for _, c := range contents(t, "raid") {
		t.Run(c.lv, func(t *testing.T) { checkContent(t, g, c) })
		types[g.LV(c.lv).Type()] = true
	}
	for name := range raidLevels {
		// LVM only reads raid10_near.
		if !types[name] && name != "raid10_near" {
			t.Errorf("no %s among the images", name)
		}
	}
}
