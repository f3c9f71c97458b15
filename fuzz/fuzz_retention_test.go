package fuzz

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"cbt/internal/retention"
)

// FuzzRetention reads any text as the rules of prune ("last=3 daily=7
// within=14d") and any bytes as the times of points. What is parsed must keep
// the newest, keep no less with more rules, and all of what it kept before.
func FuzzRetention(f *testing.F) {
	times := func(list ...int32) (b []byte) {
		for _, t := range list {
			b = binary.LittleEndian.AppendUint32(b, uint32(t))
		}
		return b
	}
	f.Add("last=3 daily=7 within=14d", times(0, 1, 3600, 86400, 86401, 1<<30, -1<<31))
	f.Add("hourly=24 weekly=5 monthly=12 yearly=100", times(1, 2, 3, 1<<30))
	f.Add("within=1y6mo2w3d36h", times(5, 5, 5))
	f.Add("daily=2 rebase=30d", times(0, 12343, 24686, 37029, 49372, 61715))
	f.Add("last=2 rebase=1d", times(1<<16, 1<<17+1, 1<<18+2, 1<<19+3, 1<<19+5, 1<<19+7))
	f.Add("daily=-1 yearly=99999999999999999999 within=1e9y", times(7))
	f.Fuzz(func(t *testing.T, text string, b []byte) {
		rules, every, ok := parseRules(text)
		if !ok {
			return
		}
		var list []time.Time
		for ; len(b) >= 4 && len(list) < 500; b = b[4:] {
			list = append(list, time.Unix(int64(int32(binary.LittleEndian.Uint32(b)))*7, 0))
		}
		kept := keptBy(rules, list)
		if len(list) > 0 && !slices.ContainsFunc(kept, slices.MaxFunc(list, time.Time.Compare).Equal) {
			t.Fatal("the newest is not kept")
		}
		for _, k := range kept {
			if !slices.Contains(list, k) {
				t.Fatalf("%v is kept and was not there", k)
			}
		}
		if again := keptBy(rules, kept); len(again) != len(kept) {
			t.Fatalf("%+v keeps %d of %d that it kept", rules, len(again), len(kept))
		}
		planTree(t, rules, every, list)
		for _, more := range moreRules(rules) {
			all := keptBy(more, list)
			for _, k := range kept {
				if !slices.Contains(all, k) {
					t.Fatalf("%v is kept by %+v, not by %+v", k, rules, more)
				}
			}
		}
	})
}

func parseRules(text string) (r retention.Rules, every retention.Span, ok bool) {
	counts := map[string]*int{"last": &r.Last, "hourly": &r.Hourly, "daily": &r.Daily, "weekly": &r.Weekly, "monthly": &r.Monthly, "yearly": &r.Yearly}
	for _, field := range strings.Fields(text) {
		name, value, _ := strings.Cut(field, "=")
		var err error
		if n := counts[name]; n != nil {
			*n, err = retention.ParseCount(value)
		} else if name == "within" {
			if r.Within, err = retention.ParseSpan(value); err == nil {
				if again, err := retention.ParseSpan(r.Within.String()); err != nil || again != r.Within {
					panic("a span does not read what it prints: " + r.Within.String())
				}
			}
		} else if name == "rebase" {
			every, err = retention.ParseSpan(value)
		}
		if err != nil {
			return r, every, false
		}
	}
	return r, every, true
}

func keptBy(r retention.Rules, list []time.Time) (kept []time.Time) {
	for i, why := range r.Keep(list) {
		if len(why) > 0 {
			kept = append(kept, list[i])
		}
	}
	return kept
}

// moreRules are r with one more rule, or one that keeps more.
func moreRules(r retention.Rules) []retention.Rules {
	var list []retention.Rules
	for i := range 7 {
		m := r
		switch i {
		case 0:
			m.Last++
		case 1:
			m.Hourly++
		case 2:
			m.Daily++
		case 3:
			m.Weekly++
		case 4:
			m.Monthly++
		case 5:
			m.Yearly++
		case 6:
			m.Within.Days++
		}
		list = append(list, m)
	}
	return list
}
