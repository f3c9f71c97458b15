package cli

import (
	"fmt"
	"strings"
	"testing"

	"cbt/internal/retention"
)

// A run that was killed after it had begun to move a base is gone on with, though the base alone would stay:
// with two branches, one of which is full by itself already, moving it no longer pays.
func TestPruneGoesOnMovingABase(t *testing.T) {
	dir := pruneDir(t, "0.cbt: disk/0 - a", "1.cbt: disk/0 a b", "2.cbt: disk/0 b c", "3.cbt: disk/0 b d", "4.cbt: disk/0 d e")
	rules := []string{"prune", dir, "--keep-last", "3"}
	start := func(every retention.Span) (*pruner, *pruneGroup) {
		p := &pruner{app: &app{}, dir: dir, every: every}
		list, err := p.scan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		together, err := p.readJournal()
		if err != nil {
			t.Fatal(err)
		}
		g := groupPruned(list, together)[0]
		if err := p.plan(g, retention.Rules{Last: 3}); err != nil {
			t.Fatal(err)
		}
		return p, g
	}
	p, g := start(retention.Span{})
	g.pending = len(g.steps) > 0
	if err := p.writeJournal([]*pruneGroup{g}); err != nil {
		t.Fatal(err)
	}
	if err := p.mergeInto(t.Context(), g, g.steps[0]); err != nil {
		t.Fatal(err)
	}
	if _, g := start(retention.Span{Years: 100}); len(g.moves) != 1 || len(g.steps) == 0 {
		t.Fatalf("the base is not moved any more: %v, %v", g.moves, g.steps)
	}
	if code, out := cbtRun(t, append(rules, "--rebase-every", "100y")...); code != 0 {
		t.Fatal(out)
	}
	if left := strings.Join(dirNames(t, dir), " "); left != "2.cbt 3.cbt 4.cbt" {
		t.Fatalf("left are %s", left)
	}
	if code, out := cbtRun(t, "verify", dir); code != 0 {
		t.Fatal(out)
	}
}

// What a dry run says will be written is what is written, nearly: the bound, as if nothing could be
// compressed, is for the space that must be there.
func TestPruneSaysWhatItWrites(t *testing.T) {
	var deltas []string
	for i := range 12 {
		deltas = append(deltas, fmt.Sprintf("%d.cbt: disk/0 %d %d", i, i-1, i))
	}
	deltas[0] = "0.cbt: disk/0 - 0"
	p := &pruner{app: &app{quiet: true}, dir: pruneDir(t, deltas...)}
	list, err := p.scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g := groupPruned(list, nil)[0]
	if err := p.plan(g, retention.Rules{Last: 2, Hourly: 4}); err != nil {
		t.Fatal(err)
	}
	said, err := p.estimate(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	bound := g.Write
	if err := p.carryOut(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if g.Write == 0 || said > g.Write*13/10+2048 || said < g.Write*7/10-2048 || said > bound/2 {
		t.Fatalf("%d bytes are written, said were %d, at most %d", g.Write, said, bound)
	}
}
