package lvm

import (
	"slices"
	"testing"
)

// Every layout, as a kernel wrote and read it.
func TestRAID(t *testing.T) {
	g := assemble(t, disks(t, "raid")...)
	types := map[string]bool{}
	// The suite takes long with the race detector, so take one of each way to spread data.
	conform := []string{"r0two", "r1", "r4", "r5la", "r6nc", "r10big"}
	for _, c := range contents(t, "raid") {
		t.Run(c.lv, func(t *testing.T) {
			t.Parallel()
			checkContent(t, g, c, slices.Contains(conform, c.lv))
		})
		types[g.LV(c.lv).Type()] = true
	}
	for name := range raidLevels {
		// LVM can only read raid10_near.
		if !types[name] && name != "raid10_near" {
			t.Errorf("no %s among the images", name)
		}
	}
}
