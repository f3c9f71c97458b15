package main

import (
	"os"
	"testing"

	"cbt/internal/testvm"
)

// TestHistory is the short round of what the program does at length.
func TestHistory(t *testing.T) {
	testvm.Need(t)
	total := short(t, config{n: 1, steps: 6, seed: 4})
	if total.comparisons < 40 {
		t.Errorf("%d comparisons: %s", total.comparisons, total.coverage)
	}
}

// TestInterrupted ends some runs of cbt in the middle.
func TestInterrupted(t *testing.T) {
	testvm.Need(t)
	total := short(t, config{n: 0, kills: 8, seed: 1})
	if total.comparisons != 8 || total.coverage["SIGKILL with the metadata snapshot held"] == 0 {
		t.Errorf("%d comparisons: %s", total.comparisons, total.coverage)
	}
}

func short(t *testing.T, cfg config) totals {
	t.Helper()
	dir, err := os.MkdirTemp("", "cbt-lvm-test-") // stays when a history fails
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	cfg.dir = dir
	total, err := cfg.run()
	if err != nil {
		t.Fatal(err)
	}
	if total.differences != 0 {
		t.Errorf("%d differences; the histories are in %s", total.differences, dir)
	}
	return total
}
