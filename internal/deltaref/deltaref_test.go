package deltaref

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestFind(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	one := []Delta{
		{File: "full.cbt", ID: "4f1c0a77", Points: "1", Time: at("2026-11-22T22:59:59Z"), Names: []string{"vm"}},
		{File: "tuesday.cbt", ID: "4f1c9977", Points: "2", Time: at("2026-11-23T23:30:00Z"), Names: []string{"vm"}}, // the 24th in Berlin
		{File: "tuesday-again.cbt", ID: "aa00", Points: "2", Time: at("2026-11-23T23:30:00Z"), Names: []string{"vm"}},
		{File: "late.cbt", ID: "bb00", Points: "3", Time: at("2026-11-25T02:00:00Z"), Names: []string{"vm"}},
		{File: "timeless.cbt", ID: "cc00", Points: "4", Names: []string{"vm"}},
	}
	two := append([]Delta{
		{File: "web-1.cbt", ID: "dd00", Points: "5", Time: at("2026-11-26T00:00:00Z"), Machine: 1, Names: []string{"web", "disk"}},
		{File: "other.cbt", ID: "dd01", Points: "6", Time: at("2026-11-21T00:00:00Z"), Machine: 1, Names: []string{"web", "vm"}},
	}, one...)
	unnamed := append([]Delta{{File: "x.cbt", ID: "ee00", Points: "7", Time: at("2026-11-21T00:00:00Z"), Machine: 2}}, two...)
	dated := append([]Delta{{File: "2026-11-24.cbt", ID: "ff00", Points: "8", Time: at("2026-11-20T00:00:00Z"), Names: []string{"vm"}}}, one...)
	split := append([]Delta{{File: "same.cbt", ID: "ff01", Points: "9", Time: at("2026-11-25T02:00:00Z"), Names: []string{"vm"}}}, one...)
	hashed := []Delta{
		{File: "late.cbt", ID: "aa00", Points: "1", Time: at("2026-11-21T00:00:00Z"), Names: []string{"disk", "file:4f1c0a99bbdd0011"}},
		{File: "other.cbt", ID: "bb00", Points: "2", Time: at("2026-11-22T00:00:00Z"), Machine: 1, Names: []string{"disk", "file:5f1c0a99bbdd0011"}},
	}
	var many []Delta
	for i := range 12 {
		many = append(many, Delta{File: fmt.Sprintf("v-%02d.cbt", i), ID: fmt.Sprintf("%04x", i), Time: at("2026-11-21T00:00:00Z").AddDate(0, 0, i)})
	}
	lost := append([]Delta{
		{File: "again.cbt", ID: "ff02", Points: "3", Time: at("2026-11-25T02:00:00Z"), Names: []string{"vm"}, Broken: true},
	}, one...)
	for _, c := range []struct {
		list   []Delta
		want   string
		file   string // of the delta; empty: an error that has text
		text   string
		byTime bool
	}{
		{one, "latest", "late.cbt", "", true},
		{one, "2026-11-24", "tuesday-again.cbt", "", true},
		{one, "2026-11-24T00:30", "tuesday-again.cbt", "", true},
		{one, "2026-11-24T00:29:59", "full.cbt", "", true},
		{one, "2026-11-23T23:30Z", "tuesday-again.cbt", "", true},
		{one, "2026-11-23T23:29:59Z", "full.cbt", "", true},
		{one, "2026-11-23", "full.cbt", "", true},
		{one, "2026-11-23Z", "tuesday-again.cbt", "", true},
		{one, "2026-11-22T23:59:59+01:00", "full.cbt", "", true},
		{one, "2026-11-22", "full.cbt", "", true}, // 23:59:59 in Berlin
		{one, "2026-11-21", "", "oldest point is of 2026-11-22 22:59:59Z", false},
		{one, "2026-02-30", "", "no ID and no name", false},
		{one, "4f1c0a", "full.cbt", "", false},
		{one, "4f1c", "", "choose one of full.cbt, tuesday.cbt", false},
		{one, "4f1", "", "no such delta", false}, // too short for an ID
		{one, "tuesday", "tuesday.cbt", "", false},
		{one, "tuesday.cbt", "tuesday.cbt", "", false},
		{one, "tue", "", "choose one of tuesday-again.cbt, tuesday.cbt", false},
		{one, "tuesday-", "tuesday-again.cbt", "", false},
		{one, "Tuesday", "", "no such delta", false},
		{one, "", "", "no name after the @", false},
		{one, "vm/latest", "late.cbt", "", true},
		{one, "vm/bb00", "late.cbt", "", false},
		{one, "other/latest", "", "no machine is called that; there are: vm", false},
		{two, "latest", "", "there are 2 machines: choose one of vm/latest, web/latest", false},
		{two, "2026-11-24", "", "choose one of vm/2026-11-24, web/2026-11-24", false},
		{two, "vm/latest", "late.cbt", "", true},    // the first names go before the others
		{two, "disk/latest", "web-1.cbt", "", true}, // by another name
		{two, "web/2026-11-24", "other.cbt", "", true},
		{two, "web-", "web-1.cbt", "", false},
		{unnamed, "latest", "", "choose one of late.cbt, web-1.cbt, x.cbt", false},
		{dated, "2026-11-24", "", "is a time, and the name of a delta: choose one of the file itself, 2026-11-24.cbt, tuesday-again.cbt", false},
		{dated, "2026-11-24.cbt", "2026-11-24.cbt", "", false},
		{split, "latest", "", "several points are of that time: choose one of late.cbt, same.cbt", false},
		{lost, "latest", "late.cbt", "", true}, // of equal points one with a whole chain
		{lost[:1], "latest", "again.cbt", "", true},
		{nil, "latest", "", "no such delta", false},
		{one, "monday", "", "neither latest nor a time like 2026-11-24 or 2026-11-24T02:00", false},
		{one, "LATEST", "", "neither latest nor a time", false},
		{hashed, "file:4f1c0a99bbdd/latest", "late.cbt", "", true},
		{hashed, "file:4f1c/latest", "late.cbt", "", true},
		{hashed, "file:9/latest", "", "no machine is called that", false},
		{hashed, "file:/latest", "", "several machines are called that", false},
		{many, "v", "", "choose one of v-11.cbt, v-10.cbt, v-09.cbt, v-08.cbt, v-07.cbt, v-06.cbt, v-05.cbt, v-04.cbt, v-03.cbt, v-02.cbt, and 2 older", false},
		{one[4:], "latest", "", "no such delta", false},
	} {
		i, byTime, err := Find(c.list, c.want, berlin)
		switch {
		case c.file == "" && (err == nil || !strings.Contains(err.Error(), c.text)):
			t.Errorf("%q: %d, %v, want an error with %q", c.want, i, err, c.text)
		case c.file == "":
			if _, many := errors.AsType[*AmbiguousError](err); !many && !errors.Is(err, ErrNone) {
				t.Errorf("%q: %v is of no kind", c.want, err)
			}
		case err != nil || c.list[i].File != c.file || byTime != c.byTime:
			t.Errorf("%q: %d, %v, %v, want %s", c.want, i, byTime, err, c.file)
		}
	}
}
