package machines

import (
	"testing"
	"time"
)

// Points of one time are in the order in which they go on from one another; what
// is of an earlier time stays there, and a circle ends.
func TestInTime(t *testing.T) {
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	delta := func(from, to string, after time.Duration) Delta {
		return Delta{Time: at.Add(after), Streams: []Stream{{Name: "disk/0", From: from, To: to}}}
	}
	list := []Delta{
		delta("c", "d", 0), delta("b", "c", 0), delta("a", "b", 0), delta("", "a", 0), // the names tell nothing
		delta("d", "e", -time.Hour), // an older snapshot, backed up later
		delta("d", "f", time.Hour),
		delta("", "b", 0), // another way to b, of the same time: no point of its own
		delta("y", "x", 0), delta("x", "y", 0),
		delta("z", "z", 0),
		{Streams: []Stream{{Name: "disk/0", From: "a", To: "g"}}},
	}
	InTime(list)
	for i, want := range []time.Duration{3, 2, 1, 0, -time.Hour, time.Hour} {
		if got := list[i].Time.Sub(at); i > 2 && got != want || i <= 2 && (got <= 0 || i > 0 && got >= list[i-1].Time.Sub(at)) {
			t.Errorf("%d: %v, want %v", i, got, want)
		}
	}
	if !list[10].Time.IsZero() {
		t.Errorf("what knows no time is of %v", list[10].Time)
	}
	again := append([]Delta{}, list...)
	InTime(again)
	for i := range list[:7] {
		if !again[i].Time.Equal(list[i].Time) {
			t.Errorf("%d: once more gives %v", i, again[i].Time.Sub(list[i].Time))
		}
	}
}
