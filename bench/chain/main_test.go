package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"cbt/cbt"
	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

func TestReport(t *testing.T) {
	good := []figures{{Open: 0.1, First: 0.1, Anywhere: 1, Written: 1, Sequential: 1, Extents: 1}}
	if !report(good, good, 10) {
		t.Error("within all limits, and missed")
	}
	for name, spoil := range map[string]func(*figures){
		"late":          func(f *figures) { f.First = 1 },
		"slow":          func(f *figures) { f.Anywhere = 2.5 },
		"slow in depth": func(f *figures) { f.Written = 2.5 },
	} {
		bad := good[0]
		if spoil(&bad); report([]figures{bad}, good, 10) {
			t.Errorf("%s, and met", name)
		}
	}
}

// Both chains lead to the image that they were made from.
func TestChainsAreThatImage(t *testing.T) {
	dir := t.TempDir()
	for _, every := range []int64{1, 5} {
		m := &image{size: 3 << 20, every: every, noise: 3}
		dir := filepath.Join(dir, string(rune('0'+every)))
		if err := makeChains(dir, m, 4, 20); err != nil {
			t.Fatal(err)
		}
		want := make([]byte, m.size)
		if _, err := sparse.ReadFull(m, want, 0); err != nil {
			t.Fatal(err)
		}
		sparsetest.View(t, m, want)
		for _, chain := range [][]string{{"p0", "p1", "p2", "p3", "p4"}, {"two/p0", "two/last"}} {
			var layers []cbt.Layer
			for _, name := range chain {
				b, err := os.ReadFile(filepath.Join(dir, name+".cbt"))
				if err != nil {
					t.Fatal(err)
				}
				d, err := cbt.Open(bytes.NewReader(b), int64(len(b)))
				if err != nil {
					t.Fatal(err)
				}
				layers = append(layers, cbt.Layer{Delta: d})
			}
			s, err := cbt.NewStack(layers...)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, m.size)
			if _, err := sparse.ReadFull(s, got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v: %v, or it differs", chain, err)
			}
		}
	}
}
