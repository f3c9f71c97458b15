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

const maxCount = 1_000_000

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
		for k, since := 0, r.Within.Before(at(0)); k < len(points) && !at(k).Before(since); k++ {
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
