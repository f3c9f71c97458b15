// Package deltaref finds the delta of a directory that a reference means: by time,
// by machine, by the beginning of its ID or of its name. It does no input or output.
package deltaref

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Delta is what is known of one delta of a directory.
type Delta struct {
	File    string    // its name in the directory
	ID      string    // in hexadecimal digits
	Points  string    // equal in deltas that lead to the same points
	Time    time.Time // of its point; zero: unknown
	Machine int       // equal in deltas of one machine
	Names   []string  // what its machine is called, the best name first
	Broken  bool      // no whole chain leads to it: of equal points another one is meant
}

// Latest means the newest point.
const Latest = "latest"

const (
	suffix = ".cbt"
	minID  = 4 // digits of an ID that may stand for it
)

// AmbiguousError says that a reference may mean several deltas.
type AmbiguousError struct {
	Want    string
	Why     string   // "several machines"
	Choices []string // of what can stand in its place
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%s: %s: choose one of %s", e.Want, e.Why, strings.Join(e.Choices, ", "))
}

// ErrNone is what errors.Is finds when no delta is meant.
var ErrNone = errors.New("no such delta")

// Find returns the place in the list of the delta that want means, and whether it
// was chosen by its time. loc is the zone of times that name none.
//
//	latest              the newest point
//	2026-11-24          the newest point of that day or before
//	2026-11-24T02:00    the newest point that is not after that time, to the second
//	MACHINE/...         each of these, of one machine
//	4f1c0a, tuesday     the beginning of an ID, or of a file's name
func Find(list []Delta, want string, loc *time.Location) (i int, byTime bool, err error) {
	all := make([]int, len(list))
	for i := range list {
		all[i] = i
	}
	prefix := ""
	if cut := strings.LastIndexByte(want, '/'); cut >= 0 {
		if all, err = ofMachine(list, want[:cut]); err != nil {
			return 0, false, err
		}
		prefix, want = want[:cut+1], want[cut+1:]
	}
	if want == "" {
		return 0, false, fmt.Errorf("no name after the @: %w", ErrNone)
	}
	named, whole := byName(list, all, want)
	limit, isTime := Limit(want, loc)
	if !isTime {
		return one(list, named, prefix+want)
	}
	i, err = newest(list, all, prefix, want, limit)
	if whole && (err != nil || i != named[0]) {
		e := &AmbiguousError{Want: prefix + want, Why: "is a time, and the name of a delta", Choices: []string{"the file itself, " + list[named[0]].File}}
		if err == nil {
			e.Choices = append(e.Choices, list[i].File)
		}
		return 0, false, e
	}
	return i, true, err
}

// one is the only one of several places.
func one(list []Delta, fits []int, want string) (int, bool, error) {
	switch {
	case len(fits) == 0:
		return 0, false, fmt.Errorf("%s: %w: no ID and no name of a file begins like that, and it is neither latest nor a time like 2026-11-24 or 2026-11-24T02:00", want, ErrNone)
	case len(fits) == 1:
		return fits[0], false, nil
	}
	return 0, false, &AmbiguousError{Want: want, Why: fmt.Sprintf("%d deltas begin like that", len(fits)), Choices: files(list, fits)}
}

// byName are those of some deltas whose ID or file name begins with want; whole: it
// is all of a name.
func byName(list []Delta, among []int, want string) (fits []int, whole bool) {
	hex := len(want) >= minID && strings.Trim(want, "0123456789abcdef") == ""
	for _, i := range among {
		d := &list[i]
		switch {
		case d.File == want || d.File == want+suffix || d.ID == want && hex:
			return []int{i}, true
		case hex && strings.HasPrefix(d.ID, want), strings.HasPrefix(d.File, want):
			fits = append(fits, i)
		}
	}
	return fits, false
}

// ofMachine are the deltas of the machine of that name.
func ofMachine(list []Delta, name string) (all []int, err error) {
	machines := map[int]bool{}
	for rank := 0; len(machines) == 0; rank++ {
		more := false
		for _, d := range list {
			if rank < len(d.Names) {
				more = true
				if d.Names[rank] == name {
					machines[d.Machine] = true
				}
			}
		}
		if !more {
			break
		}
	}
	if len(machines) == 0 && strings.Contains(name, ":") { // of an identity, the beginning will do
		for _, d := range list {
			if slices.ContainsFunc(d.Names, func(s string) bool { return strings.HasPrefix(s, name) }) {
				machines[d.Machine] = true
			}
		}
	}
	for i, d := range list {
		if machines[d.Machine] {
			all = append(all, i)
		}
	}
	switch {
	case len(machines) == 0:
		return nil, fmt.Errorf("%s: %w: no machine is called that; there are: %s", name, ErrNone, strings.Join(Machines(list), ", "))
	case len(machines) > 1:
		return nil, &AmbiguousError{Want: name, Why: "several machines are called that", Choices: newestFiles(list, all)}
	}
	return all, nil
}

// newest is the newest of some deltas, before limit if that is not zero.
func newest(list []Delta, among []int, prefix, want string, limit time.Time) (int, error) {
	machines := map[int]bool{}
	best := -1
	for _, i := range among {
		d := &list[i]
		machines[d.Machine] = true
		switch {
		case d.Time.IsZero() || !limit.IsZero() && !d.Time.Before(limit):
		case best < 0, d.Time.After(list[best].Time), d.Time.Equal(list[best].Time) && before(d, &list[best]):
			best = i
		}
	}
	if len(machines) > 1 {
		choices := []string{}
		for _, name := range Machines(list) {
			choices = append(choices, name+"/"+want)
		}
		if len(choices) < len(machines) {
			choices = newestFiles(list, among)
		}
		return 0, &AmbiguousError{Want: prefix + want, Why: fmt.Sprintf("there are %d machines", len(machines)), Choices: choices}
	}
	if best < 0 && !limit.IsZero() {
		oldest := time.Time{}
		for _, i := range among {
			if t := list[i].Time; !t.IsZero() && (oldest.IsZero() || t.Before(oldest)) {
				oldest = t
			}
		}
		if !oldest.IsZero() {
			return 0, fmt.Errorf("%s%s: %w: the oldest point is of %s", prefix, want, ErrNone, oldest.UTC().Format("2006-01-02 15:04:05Z"))
		}
	}
	if best < 0 {
		return 0, fmt.Errorf("%s%s: %w", prefix, want, ErrNone)
	}
	var same []int
	for _, i := range among {
		if list[i].Time.Equal(list[best].Time) && list[i].Points != list[best].Points {
			same = append(same, i)
		}
	}
	if len(same) > 0 {
		return 0, &AmbiguousError{Want: prefix + want, Why: "several points are of that time", Choices: files(list, append([]int{best}, same...))}
	}
	return best, nil
}

// before says which of two deltas of one time is meant.
func before(a, b *Delta) bool {
	if a.Broken != b.Broken {
		return b.Broken
	}
	return a.File < b.File
}

// Limit is the time before which what want means must be; zero for Latest. ok is
// false if want is no time.
func Limit(want string, loc *time.Location) (limit time.Time, ok bool) {
	if want == Latest {
		return limit, true
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02Z07:00"} {
		if t, err := time.ParseInLocation(layout, want, loc); err == nil {
			return t.AddDate(0, 0, 1), true
		}
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", "2006-01-02T15:04:05Z07:00"} {
		if t, err := time.ParseInLocation(layout, want, loc); err == nil {
			return t.Add(time.Second), true // as it is printed, without fractions
		}
	}
	return limit, false
}

// Machines are the names of all machines that have one.
func Machines(list []Delta) (names []string) {
	seen := map[int]bool{}
	for _, d := range list {
		if !seen[d.Machine] && len(d.Names) > 0 {
			seen[d.Machine] = true
			names = append(names, d.Names[0])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// newestFiles are the newest files of each machine of some deltas.
func newestFiles(list []Delta, among []int) []string {
	best := map[int]int{}
	for _, i := range among {
		if k, ok := best[list[i].Machine]; !ok || list[i].Time.After(list[k].Time) {
			best[list[i].Machine] = i
		}
	}
	var fits []int
	for _, i := range best {
		fits = append(fits, i)
	}
	return files(list, fits)
}

// files are the names of some deltas; of too many, the newest, these first.
func files(list []Delta, fits []int) (names []string) {
	const most = 10
	if len(fits) > most {
		fits = slices.Clone(fits)
		slices.SortStableFunc(fits, func(i, k int) int { return list[k].Time.Compare(list[i].Time) })
		for _, i := range fits[:most] {
			names = append(names, list[i].File)
		}
		return append(names, fmt.Sprintf("and %d older", len(fits)-most))
	}
	for _, i := range fits {
		names = append(names, list[i].File)
	}
	slices.Sort(names)
	return names
}
