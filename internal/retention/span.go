package retention

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Span is a time between two instants: calendar units, so that a year is a year.
type Span struct{ Years, Months, Days, Hours, Minutes, Seconds int }

// Before is t, less the span. What no calendar has counts as the beginning.
func (s Span) Before(t time.Time) time.Time {
	return t.AddDate(-s.Years, -s.Months, -s.Days).Add(-s.clock())
}

// After is t and the span.
func (s Span) After(t time.Time) time.Time {
	return t.AddDate(s.Years, s.Months, s.Days).Add(s.clock())
}

func (s Span) clock() time.Duration {
	return time.Duration(s.Hours)*time.Hour + time.Duration(s.Minutes)*time.Minute + time.Duration(s.Seconds)*time.Second
}

// unit is one of those that a span may have.
type unit struct {
	name string
	of   func(s *Span) *int
	by   int // how many of these one is
}

// units are all, as they are written, the largest first.
var units = []unit{
	{"y", func(s *Span) *int { return &s.Years }, 1},
	{"mo", func(s *Span) *int { return &s.Months }, 1},
	{"w", func(s *Span) *int { return &s.Days }, 7},
	{"d", func(s *Span) *int { return &s.Days }, 1},
	{"h", func(s *Span) *int { return &s.Hours }, 1},
	{"m", func(s *Span) *int { return &s.Minutes }, 1},
	{"s", func(s *Span) *int { return &s.Seconds }, 1},
}

// maxUnits bounds each unit of a span: no time overflows.
const maxUnits = 1_000_000

func (s Span) String() string {
	var b strings.Builder
	for _, u := range units {
		if n := *u.of(&s); n != 0 && u.name != "w" {
			fmt.Fprintf(&b, "%d%s", n, u.name)
		}
	}
	return b.String()
}

// ParseTime reads a time such as 1y6mo, 2w, 1d12h, 26h, 90m or 30s: each unit
// once at most and the larger first. mo are months, m minutes; a week is 7 days.
// It may be none, as in 0s.
func ParseTime(s string) (Span, error) {
	bad := errors.New("must be a time like 1y6mo, 2w, 14d, 36h, 10m or 30s (y, mo: months, w, d, h, m: minutes, s)")
	var span Span
	rest, next := s, 0
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := parseDigits(rest[:digits], maxUnits)
		if err != nil {
			return Span{}, bad
		}
		rest = rest[digits:]
		name := rest[:len(rest)-len(strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyz"))]
		i := slices.IndexFunc(units[next:], func(u unit) bool { return u.name == name })
		if i < 0 {
			return Span{}, bad
		}
		u := units[next+i]
		*u.of(&span) += n * u.by
		rest, next = rest[len(name):], next+i+1
	}
	if s == "" {
		return Span{}, bad
	}
	return span, nil
}

// ParseSpan reads a span of rules such as 1y6mo, 2w, 14d or 36h, as ParseTime does:
// no minutes, which m is elsewhere, and not none.
func ParseSpan(s string) (Span, error) {
	span, err := ParseTime(s)
	switch {
	case err == nil && strings.Contains(strings.ReplaceAll(s, "mo", ""), "m"):
		i := strings.LastIndex(s, "m")
		return Span{}, fmt.Errorf("months are mo: %so%s (m is minutes, as in --max-age and --wait, and no rule counts those)", s[:i+1], s[i+1:])
	case err != nil && monthsMeant(s):
		return Span{}, errors.New("months are mo, as in 1y6mo (m is minutes, as in --max-age and --wait)")
	case err != nil || span == Span{} || span.Seconds > 0:
		return Span{}, errors.New("must be a time like 1y6mo, 2w, 14d or 36h (y, mo: months, w, d, h)")
	}
	return span, nil
}

// monthsMeant says whether s would be a span if m were months.
func monthsMeant(s string) bool {
	_, err := ParseTime(strings.Replace(s, "m", "mo", 1))
	return err == nil
}
