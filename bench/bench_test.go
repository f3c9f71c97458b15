package main

import (
	"testing"
	"time"

	"cbt/fuzz/tool"
	"cbt/internal/testtool"
)

func TestBytesRead(t *testing.T) {
	for stderr, want := range map[string]int64{
		"cbt: 129185 bytes read\n":                        129185,
		"method: tables\n3 extents\nread 77 bytes of 9\n": 77,
		"nothing of the kind":                             -1,
		"":                                                -1,
	} {
		got, err := bytesRead([]byte(stderr))
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v, want %d", stderr, got, err, want)
		}
	}
}

func TestReport(t *testing.T) {
	q := question{name: "q", ratio: 20, limit: 20 * time.Millisecond, read: 1 << 20}
	good := answer{diff: []time.Duration{1, 2, 3}, ratios: []float64{15, 25, 30}, rss: 1 << 20, read: 5}
	if !q.report(good) {
		t.Error("within all limits, and missed")
	}
	for name, spoil := range map[string]func(*answer){
		"slow":    func(a *answer) { a.ratios = []float64{15, 19, 30} },
		"late":    func(a *answer) { a.diff = []time.Duration{1, time.Second, time.Second} },
		"greedy":  func(a *answer) { a.read = 1 << 20 },
		"swollen": func(a *answer) { a.rss = memoryLimit },
	} {
		a := good
		if spoil(&a); q.report(a) {
			t.Errorf("%s, and met", name)
		}
	}
}

func TestStartupReport(t *testing.T) {
	s := &startup{name: "s", ratio: 2, times: []time.Duration{3, 4, 5}, others: []time.Duration{2, 2, 2}, ratios: []float64{1.5, 2, 2.5}}
	if !s.report() {
		t.Error("within the limit, and missed")
	}
	s.ratios[1] = 2.1
	if s.report() {
		t.Error("slow, and met")
	}
}

// Both programs are found and end well: a flag that one of them lost would show in make bench only.
func TestStartups(t *testing.T) {
	testtool.Need(t, "qemu-img")
	bin, err := tool.Binary("", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := startups(bin, t.TempDir(), 2); err != nil {
		t.Error(err)
	}
}
