package main

import (
	"testing"

	"cbt/internal/testtool"
)

// TestKill is the short round of what the program does at length.
func TestKill(t *testing.T) {
	testtool.Need(t, "qemu-img")
	testtool.Need(t, "qemu-io")
	testtool.Need(t, "go")
	faults, err := config{kills: 10, steps: 3, interrupts: 2, pairs: 4, alterations: 8, mib: 12, seed: 1}.run()
	if err != nil {
		t.Fatal(err)
	}
	if faults != 0 {
		t.Errorf("%d faults", faults)
	}
}

func TestPruneOrdered(t *testing.T) {
	const (
		fileSync = `[pid 1] fsync(5</w/#123 (deleted)>) = 0` + "\n"
		rename   = `[pid 1] renameat(-100</>, "/w/.a.cbt.part", -100</>, "/w/a.cbt") = 0` + "\n"
		dirSync  = `[pid 1] fsync(6</w>) = 0` + "\n"
		unlink   = `[pid 1] unlinkat(AT_FDCWD</>, "/w/b.cbt", 0) = 0` + "\n"
	)
	for trace, good := range map[string]bool{
		fileSync + rename + dirSync + unlink + dirSync:                    true,
		fileSync + rename + dirSync + unlink + dirSync + unlink + dirSync: true,
		rename + dirSync + unlink + dirSync:                               false,
		fileSync + rename + unlink + dirSync:                              false,
		fileSync + rename + dirSync + unlink:                              false,
		fileSync + rename + dirSync + unlink + unlink + dirSync:           false,
		fileSync + rename + dirSync:                                       false,
	} {
		if err := pruneOrdered(trace, "/w"); (err == nil) != good {
			t.Errorf("%q: %v, want good: %v", trace, err, good)
		}
	}
}

func TestOrdered(t *testing.T) {
	j := job{name: "diff -o", args: []string{"diff", "a", "b", "-o", "/w/out.cbt"}}
	const (
		fileSync = `[pid 1] fsync(5</w/.out.cbt.123>) = 0` + "\n"
		rename   = `[pid 1] renameat(-100</>, "/w/.out.cbt.123", -100</>, "/w/out.cbt") = 0` + "\n"
		dirSync  = `[pid 1] fsync(6</w>) = 0` + "\n"
	)
	for trace, good := range map[string]bool{
		fileSync + rename + dirSync: true,
		fileSync + rename:           false,
		rename + fileSync + dirSync: false,
		rename + dirSync:            false,
		fileSync + dirSync + rename: false,
		fileSync + dirSync:          false,
		"":                          false,
	} {
		if err := ordered(trace, "/w", j); (err == nil) != good {
			t.Errorf("%q: %v, want good: %v", trace, err, good)
		}
	}
	j = job{name: "apply", args: []string{"apply", "d.cbt", "/w/target.raw"}}
	if err := ordered(fileSync+dirSync, "/w", j); err != nil {
		t.Error(err)
	}
	if err := ordered(fileSync, "/w", j); err == nil {
		t.Error("apply without a sync of the directory passes")
	}
}
