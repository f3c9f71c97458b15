// Package retention says which points of a machine's history stay and in which
// order the others go. It does no input or output: all of it are functions of
// times, names and sizes.
package retention

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Rules say what to keep. A point that any of them keeps is kept. The counted
// ones are not used if they are 0. Hours, days, weeks (of ISO 8601), months and
// years are those of UTC.
type Rules struct {
	Last    int // that many newest points
	Hourly  int // the newest point of each of that many hours that have one
	Daily   int
	Weekly  int
	Monthly int
	Yearly  int
	Within  Span // what is no older than the newest point by more
}

// None says that no rule is used.
func (r Rules) None() bool { return r == Rules{} }

// Span is a time between two points: calendar units, so that a year is a year.
type Span struct{ Years, Months, Days, Hours int }

// before is t, less the span. What no calendar has counts as the beginning.
func (s Span) before(t time.Time) time.Time {
	return t.AddDate(-s.Years, -s.Months, -s.Days).Add(-time.Duration(s.Hours) * time.Hour)
}

// after is t and the span.
func (s Span) after(t time.Time) time.Time {
	return t.AddDate(s.Years, s.Months, s.Days).Add(time.Duration(s.Hours) * time.Hour)
}

func (s Span) String() string {
	var b strings.Builder
	for _, u := range []struct {
		n    int
		unit string
	}{{s.Years, "y"}, {s.Months, "m"}, {s.Days, "d"}, {s.Hours, "h"}} {
		if u.n != 0 {
			fmt.Fprintf(&b, "%d%s", u.n, u.unit)
		}
	}
	return b.String()
}

const (
	maxCount = 1_000_000
	maxUnits = 100_000 // of each unit of a span: no time overflows
)

// ParseCount reads the number of a counted rule: digits only.
func ParseCount(s string) (int, error) {
	n, err := parseDigits(s, maxCount)
	if err != nil {
		return 0, fmt.Errorf("must be a number from 0 to %d", maxCount)
	}
	return n, nil
}

func parseDigits(s string, most int) (int, error) {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		return 0, errors.New("no digits")
	}
	n, err := strconv.Atoi(s)
	if err != nil || n > most {
		return 0, errors.New("too large")
	}
	return n, nil
}

// ParseSpan reads a span such as 1y6m, 2w, 14d or 36h: each unit once at most
// and the larger first. m is months; a week is 7 days.
func ParseSpan(s string) (Span, error) {
	bad := errors.New("must be a time like 1y6m, 2w, 14d or 36h (y, m: months, w, d, h)")
	var span Span
	units := "ymwdh"
	rest := s
	for rest != "" {
		i := strings.IndexAny(rest, units)
		if i < 0 {
			return Span{}, bad
		}
		n, err := parseDigits(rest[:i], maxUnits)
		if err != nil {
			return Span{}, bad
		}
		switch rest[i] {
		case 'y':
			span.Years = n
		case 'm':
			span.Months = n
		case 'w':
			span.Days = 7 * n
		case 'd':
			span.Days += n
		case 'h':
			span.Hours = n
		}
		units = units[strings.IndexByte(units, rest[i])+1:]
		rest = rest[i+1:]
	}
	if span == (Span{}) {
		return Span{}, bad
	}
	return span, nil
}

// period is a counted rule.
type period struct {
	name  string
	count int
	of    func(time.Time) string
}

func (r Rules) periods() []period {
	return []period{
		{"hourly", r.Hourly, func(t time.Time) string { return t.Format("2006-01-02 15h") }},
		{"daily", r.Daily, func(t time.Time) string { return t.Format(time.DateOnly) }},
		{"weekly", r.Weekly, func(t time.Time) string {
			year, week := t.ISOWeek()
			return fmt.Sprintf("%04d-W%02d", year, week)
		}},
		{"monthly", r.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
		{"yearly", r.Yearly, func(t time.Time) string { return t.Format("2006") }},
	}
}

// Keep says, for each of the times, which rules keep it; of those that fall
// away the list is empty. Equal times are one point. The newest is kept
// whatever the rules. While a counted rule of a period finds fewer periods than
// it may keep, it also keeps the oldest point.
func (r Rules) Keep(times []time.Time) [][]string {
	reasons := make([][]string, len(times))
	order := make([]int, len(times)) // newest first
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(times[b].Compare(times[a]), cmp.Compare(a, b)) })
	var points [][]int // newest first, each with those of the same time
	for _, i := range order {
		if n := len(points); n > 0 && times[points[n-1][0]].Equal(times[i]) {
			points[n-1] = append(points[n-1], i)
		} else {
			points = append(points, []int{i})
		}
	}
	if len(points) == 0 {
		return reasons
	}
	keep := func(point int, why string) {
		for _, i := range points[point] {
			reasons[i] = append(reasons[i], why)
		}
	}
	at := func(point int) time.Time { return times[points[point][0]].UTC() }

	for k := range min(r.Last, len(points)) {
		keep(k, "last")
	}
	if r.Within != (Span{}) {
		for k, since := 0, r.Within.before(at(0)); k < len(points) && !at(k).Before(since); k++ {
			keep(k, "within "+r.Within.String())
		}
	}
	var unfilled []string
	for _, p := range r.periods() {
		found, last := 0, ""
		for k := 0; k < len(points) && found < p.count; k++ {
			if now := p.of(at(k)); found == 0 || now != last {
				keep(k, p.name+" "+now)
				last = now
				found++
			}
		}
		if found < p.count {
			unfilled = append(unfilled, p.name)
		}
	}
	if oldest := len(points) - 1; len(unfilled) > 0 {
		keep(oldest, "oldest ("+strings.Join(unfilled, ", ")+" not full)")
	}
	if len(reasons[points[0][0]]) == 0 {
		keep(0, "newest")
	}
	return reasons
}
