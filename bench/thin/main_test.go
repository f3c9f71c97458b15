package main

import (
	"testing"
	"time"
)

func TestReport(t *testing.T) {
	w := way{name: "w", ratio: 20}
	good := answer{took: []time.Duration{1, 2, 3}, ratios: []float64{15, 25, 30}, rss: 1 << 20}
	if !w.report(good) {
		t.Error("within all limits, and missed")
	}
	slow, swollen := good, good
	slow.ratios = []float64{15, 19, 30}
	swollen.rss = memoryLimit
	if w.report(slow) || w.report(swollen) {
		t.Error("not within the limits, and met")
	}
}

func TestSameBlocks(t *testing.T) {
	theirs := `<same begin="0" length="2"/><different begin="2" length="3"/><right_only begin="5" length="1"/><left_only begin="9" length="1"/>`
	if err := sameBlocks([]byte("131072 262144\n589824 65536\n"), []byte(theirs)); err != nil {
		t.Error(err)
	}
	for _, ours := range []string{"", "131072 262144\n", "131072 262144\n589824 131072\n"} {
		if sameBlocks([]byte(ours), []byte(theirs)) == nil {
			t.Errorf("%q is the same", ours)
		}
	}
}

func TestPools(t *testing.T) {
	for _, p := range pools {
		for device := 1; device <= 2; device++ {
			total, end := int64(0), int64(0)
			p.runs(device, 5000, func(key, data, n int64) {
				if key < end || n < 1 || data < 0 || data+n > 10_000 {
					t.Errorf("%s: run %d %d %d", p.name, key, data, n)
				}
				total, end = total+n, key+n
			})
			if total != 5000 {
				t.Errorf("%s: %d mappings", p.name, total)
			}
		}
	}
}
