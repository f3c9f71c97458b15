package lvm

import (
	"fmt"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

func TestParseText(t *testing.T) {
	text := "# a comment { \" = \n" +
		"a = 1\n b=-2 c\n=\n+3 # and another }\n" +
		"oct = 010 zero = 0 min = -9223372036854775808 max = 9223372036854775807\n" +
		"f = 1.5 g = .5\n" +
		`s = "with # and \"quotes\" and \\ and \n and` + "\n" + `a new line" t = 'it\' "quoted key" = 'x'` + "\n" +
		"bare = some/word,[x] e = []\n" +
		"l = [ 1, 'two', \"three\" 4.0, ]\n" +
		"sub { x = 1 sub { } y = [\"z\"] } sub2{x=2}\n" +
		"\x00 } not read { = ="
	root, err := ParseText([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	var walk func(s *Section, in string)
	walk = func(s *Section, in string) {
		for _, it := range s.Items {
			if it.Section != nil {
				got = append(got, in+it.Key+"{}")
				walk(it.Section, in+it.Key+".")
				continue
			}
			got = append(got, in+it.Key+"="+show(it.Value))
		}
	}
	walk(root, "")
	want := []string{"a=1", "b=-2", "c=3", "oct=8", "zero=0", fmt.Sprint("min=", math.MinInt64), fmt.Sprint("max=", math.MaxInt64), "f=1.5f", "g=0.5f",
		"s=\"with # and \\\"quotes\\\" and \\\\ and \\\\n and\\na new line\"", `t="it\\"`, `quoted key="x"`, `bare="some/word,[x]"`, "e=[]",
		`l=[1 "two" "three" 4f]`, "sub{}", "sub.x=1", "sub.sub{}", `sub.y=["z"]`, "sub2{}", "sub2.x=2"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if p := root.item("sub2").Pos; p != (Pos{12, 33}) {
		t.Errorf("sub2 is at %v", p)
	}
}

func show(v Value) string {
	switch v.Kind {
	case Int:
		return fmt.Sprint(v.Int)
	case Float:
		return fmt.Sprint(v.Float, "f")
	case String:
		return fmt.Sprintf("%q", v.Text)
	}
	var all []string
	for _, e := range v.List {
		all = append(all, show(e))
	}
	return "[" + strings.Join(all, " ") + "]"
}

// Hazard 4: the text.
func TestHazard4Text(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"a {", `line 1, column 3: "a": a section that does not end`},
		{"a {\n  b = 1\n", `line 1, column 3: "a": a section that does not end`},
		{"a { b = 1\x00 }", `a section that does not end`},
		{"a = 1\n}\n", `line 2, column 1: a } without its {`},
		{"a = \"x\ny", `line 1, column 5: a string that does not end`},
		{"a = 'x\x00'", `line 1, column 5: a string`},
		{"a = \"x\\\"", `a string that does not end`},
		{"a = \"x\x00\"", `a string that does not end`},
		{"a = [1, 2", `line 1, column 5: a list that does not end`},
		{"a = [1, [2]]", `line 1, column 9: a value is missing`},
		{"a = [1 } ]", `line 1, column 8: a value is missing`},
		{"a = [b]", `a value is missing`},
		{"a = ", `line 1, column 5: a value is missing`},
		{"a = }", `line 1, column 5: a value is missing`},
		{"a = # b", `a value is missing`},
		{"a", `line 1, column 2: neither = nor { after "a"`},
		{"a b = 1", `line 1, column 3: neither`},
		{"= 1", `line 1, column 1: "": not a key`},
		{"{ }", `not a key`},
		{"'' = 1", `not a key`},
		{"a/b = 1", `line 1, column 1: "a/b": not a key`},
		{"\n\n  a/b { }", `line 3, column 3: "a/b": not a key`},
		{"'a/b' = 1", `not a key`},
		{"a = 1 a = 2", `line 1, column 7: "a": a second item with this key`},
		{"a = 1 a { }", `a second item with this key`},
		{"a = 9223372036854775808", `line 1, column 5: "9223372036854775808": not a 64-bit integer`},
		{"a = -99999999999999999999", `not a 64-bit integer`},
		{"a = 08", `not a 64-bit integer`},
		{"a = +", `not a 64-bit integer`},
		{"a = 0x10", `"0x": not a number`},
		{"a = 1.2.3", `not a number`},
		{"a = .", `not a number`},
		{strings.Repeat("a {", 1_000_000), `sections more than 16 deep`},
		{strings.Repeat("a {", 17) + strings.Repeat("}", 17), `line 1, column 52: sections more than 16 deep`},
		{"l = [" + strings.Repeat("1 ", maxItems+1) + "]", `more than 1048576 items`},
		{strings.Repeat("#", maxText+1), `more than the limit`},
	} {
		root, err := ParseText([]byte(c.text))
		if root != nil {
			t.Errorf("%.40q: a tree", c.text)
		}
		wantFault(t, err, c.want)
	}
	if _, err := ParseText([]byte(strings.Repeat("a {", 16) + strings.Repeat("}", 16))); err != nil {
		t.Error(err)
	}
	var many strings.Builder
	for i := range 100 {
		fmt.Fprintf(&many, "k%d = 1\n", i)
	}
	if _, err := ParseText([]byte(many.String())); err != nil {
		t.Error(err)
	}
	_, err := ParseText([]byte(many.String() + "k50 { }"))
	wantFault(t, err, `line 101, column 1: "k50": a second item`)
}

// A text that is cut anywhere is refused, or lacks whole items at its end.
func TestCutText(t *testing.T) {
	text := vgText(1, lvText("a", linear(0, 2, "pv0", 0), linear(2, 2, "pv0", 4))+lvText("b", linear(0, 1, "pv0", 2)))
	parsed := 0
	for n := range text {
		root, err := ParseText([]byte(text[:n]))
		if err != nil {
			if !isFault(err) {
				t.Fatalf("cut at %d: %v", n, err)
			}
			continue
		}
		if _, err := decodeGroup(root); err == nil {
			parsed++
			if n < strings.Index(text, "version") {
				t.Fatalf("cut at %d: a group", n)
			}
		} else if !isFault(err) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	if parsed == 0 {
		t.Error("no cut is a group: shows nothing")
	}
}

// The limits bound how much memory a text can make us allocate.
func TestTextMemory(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("a {} ", 3_000_000),
		"a = [" + strings.Repeat("'' ", 5_000_000) + "]",
		"a = [" + strings.Repeat("1 ", maxItems-2) + "]",
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		root, _ := ParseText([]byte(text))
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(root)
		if total := after.TotalAlloc - before.TotalAlloc; total > 1<<30 {
			t.Errorf("%.10q...: %d MiB allocated", text, total>>20)
		}
		if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 256<<20 {
			t.Errorf("%.10q...: %d MiB kept", text, kept>>20)
		}
	}
}
