package tree

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// naiveNames is what Names promises, without a thought of how long it takes.
func naiveNames(list []Named, suffix string) []string {
	count, taken, names := map[string]int{}, map[string]bool{}, make([]string, len(list))
	for _, n := range list {
		count[Escape(n.Name)]++
	}
	alone := func(n Named) bool { return count[Escape(n.Name)] == 1 && len(Escape(n.Name))+len(suffix) <= MaxName }
	for i, n := range list {
		if alone(n) {
			names[i] = Escape(n.Name)
			taken[names[i]] = true
		}
	}
	for i, n := range list {
		for k := 1; names[i] == ""; k++ {
			tail := apart + cut(Escape(n.ID), MaxName/3)
			if k > 1 {
				tail += apart + strconv.Itoa(k)
			}
			if try := cut(Escape(n.Name), MaxName-len(suffix)-len(tail)) + tail; !taken[try] {
				names[i], taken[try] = try, true
			}
		}
	}
	for i := range names {
		names[i] += suffix
	}
	return names
}

func TestNamesAreThoseOfTheNaiveWay(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 2))
	stems := []string{"a", "", "ä", strings.Repeat("x", 240), strings.Repeat("/", 84), strings.Repeat("é", 125), "a%~2"}
	ends := []string{"", "1", "%", "/", "é", "xyz", "xyzw", "0123456789", "\xff\xff\xff"}
	for range 60 {
		var list []Named
		for range 1 + random.IntN(250) {
			list = append(list, Named{stems[random.IntN(len(stems))] + ends[random.IntN(len(ends))], ends[random.IntN(3)]})
		}
		suffix := []string{"", ".raw"}[random.IntN(2)]
		got, want := Names(list, suffix), naiveNames(list, suffix)
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("name %d of %q is %q, want %q", i, list, got[i], want[i])
			}
		}
		checkNames(t, list, suffix)
	}
}

// A qcow2 image may have 65,536 snapshots, and all of one name and ID.
func TestNamesWork(t *testing.T) {
	const many = 65536
	prefix := strings.Repeat("p", 249)
	for what, name := range map[string]func(i int) Named{
		"one name and ID": func(int) Named { return Named{"daily", "1"} },
		"long names":      func(int) Named { return Named{strings.Repeat("x", 300), "1"} },
		"cut to one":      func(i int) Named { return Named{fmt.Sprintf("%s%06d", prefix, i), "1"} },
		"cut in pairs":    func(i int) Named { return Named{fmt.Sprintf("%s%c%c", prefix[:248], 'a'+i/2%26, 'a'+i/52%26), "1"} },
		"long IDs":        func(i int) Named { return Named{"daily", fmt.Sprintf("%s%d", prefix, i)} },
		"no name":         func(int) Named { return Named{} },
	} {
		list := make([]Named, many)
		for i := range list {
			list[i] = name(i)
		}
		n := namer{room: MaxName, taken: map[string]bool{}, next: map[string]int{}}
		names := n.names(list, "")
		if n.tries > 7*many {
			t.Errorf("%s: %d tries for %d names", what, n.tries, many)
		}
		seen := map[string]bool{}
		for _, s := range names {
			if seen[s] || len(s) > MaxName {
				t.Fatalf("%s: name %q", what, s)
			}
			seen[s] = true
		}
	}
}
