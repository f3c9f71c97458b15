package tree

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestEscape(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"monday", "monday"},
		{"", "%"},
		{".", "%2E"},
		{"..", "%2E%2E"},
		{"...", "..."},
		{".hidden", ".hidden"},
		{"a/b", "a%2Fb"},
		{"100%", "100%25"},
		{"line\nbreak", "line%0Abreak"},
		{"Größe 1", "Größe 1"},
		{"\xff", "%FF"},
		{"\u202eabc", "%E2%80%AEabc"},
		{"\ufffd", "\ufffd"},
	} {
		got := Escape(c.in)
		if got != c.want {
			t.Errorf("Escape(%q) = %q, want %q", c.in, got, c.want)
		}
		if back, ok := Unescape(got); !ok || back != c.in {
			t.Errorf("Unescape(%q) = %q, %v", got, back, ok)
		}
	}
	for _, bad := range []string{"%2", "%zz", "%41", "%2e", "a/b", "..", "", "x%~1"} {
		if s, ok := Unescape(bad); ok {
			t.Errorf("Unescape(%q) = %q", bad, s)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("a/b", "1")
	f.Add(strings.Repeat("ä", 200), "%")
	f.Fuzz(func(t *testing.T, s, id string) {
		name := Escape(s)
		if back, ok := Unescape(name); !ok || back != s {
			t.Errorf("Unescape(Escape(%q)) = %q, %v", s, back, ok)
		}
		checkNames(t, []Named{{s, id}, {s, id}, {s, "2"}, {id, s}}, ".raw")
	})
}

// checkNames checks that names are file names, and no two the same.
func checkNames(t *testing.T, list []Named, suffix string) []string {
	t.Helper()
	names := Names(list, suffix)
	seen := map[string]bool{}
	for _, n := range names {
		if n == "" || n == "." || n == ".." || len(n) > MaxName || strings.ContainsAny(n, "/\x00") || !strings.HasSuffix(n, suffix) {
			t.Errorf("%q is no file name", n)
		}
		if seen[n] {
			t.Errorf("%q comes twice", n)
		}
		seen[n] = true
	}
	return names
}

func TestNames(t *testing.T) {
	long := strings.Repeat("x", 300)
	got := checkNames(t, []Named{
		{"monday", "1"}, {"twice", "2"}, {"twice", "3"}, {"twice", "3"}, {long, "6"}, {long, "7"}, {"twice%~2", "8"},
		{strings.Repeat("/", 100), "9"},
	}, "")
	want := []string{
		"monday", "twice%~2", "twice%~3", "twice%~3%~2", long[:252] + "%~6", long[:252] + "%~7", "twice%25~2",
		strings.Repeat("%2F", 84) + "%~9",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Names = %q\nwant %q", got, want)
	}
}

type thing struct {
	closed atomic.Int32
}

func (t *thing) Close() error { t.closed.Add(1); return nil }

func TestPoolKeepsWhatIsUsed(t *testing.T) {
	p := NewPool[int, *thing](2)
	opened := map[int]int{}
	get := func(k int) (*thing, func()) {
		v, release, err := p.Get(context.Background(), k, func() (*thing, error) {
			opened[k]++
			return &thing{}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return v, release
	}
	held, release := get(0)
	var rest []*thing
	for k := 1; k <= 4; k++ {
		v, done := get(k)
		done()
		done() // a second time counts for nothing
		rest = append(rest, v)
	}
	if held.closed.Load() != 0 {
		t.Error("what is in use was closed")
	}
	for i, want := range []int32{1, 1, 0, 0} {
		if got := rest[i].closed.Load(); got != want {
			t.Errorf("thing %d was closed %d times, want %d", i+1, got, want)
		}
	}
	if again, done := get(4); again != rest[3] || opened[4] != 1 {
		t.Error("what was used last was opened again")
	} else {
		done()
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if held.closed.Load() != 0 || rest[3].closed.Load() != 1 {
		t.Error("Close closes what is in use, or not the rest")
	}
	release()
	if held.closed.Load() != 1 {
		t.Error("what was in use stays open")
	}
	if _, _, err := p.Get(context.Background(), 9, func() (*thing, error) { return nil, nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Get after Close: %v", err)
	}
}

func TestPoolOpensOnce(t *testing.T) {
	p := NewPool[string, *thing](1)
	var opens atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			_, release, err := p.Get(context.Background(), "a", func() (*thing, error) {
				opens.Add(1)
				time.Sleep(10 * time.Millisecond)
				return &thing{}, nil
			})
			if err != nil {
				t.Error(err)
				return
			}
			release()
		})
	}
	wg.Wait()
	if opens.Load() != 1 {
		t.Errorf("opened %d times", opens.Load())
	}
}

func TestPoolWaitEnds(t *testing.T) {
	p := NewPool[string, *thing](1)
	let := make(chan struct{})
	v := &thing{}
	open := func() (*thing, error) { <-let; return v, nil }
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := p.Get(ctx, "a", open); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(let)
	got, release, err := p.Get(context.Background(), "a", func() (*thing, error) { return nil, errors.New("opened twice") })
	if err != nil || got != v {
		t.Fatal(got, err)
	}
	release()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); v.closed.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal("who stopped waiting keeps it open")
		}
	}
}

func TestPoolFailures(t *testing.T) {
	p := NewPool[string, *thing](1)
	for _, open := range []func() (*thing, error){
		func() (*thing, error) { return nil, errors.New("broken") },
		func() (*thing, error) { panic("hostile") },
	} {
		if _, _, err := p.Get(context.Background(), "a", open); err == nil {
			t.Error("no error")
		}
	}
	_, release, err := p.Get(context.Background(), "a", func() (*thing, error) { return &thing{}, nil })
	if err != nil {
		t.Fatal("a failure is kept: ", err)
	}
	release()
}

func TestListing(t *testing.T) {
	calls := 0
	d := &Dir{List: func(context.Context) ([]Entry, error) {
		calls++
		return []Entry{{Name: "a", File: &File{Size: 3}}, {Name: "b", Dir: Static(time.Time{})}}, nil
	}}
	tr := New(Static(time.Time{}, Entry{Name: "d", Dir: d}))
	for range 3 {
		l, err := tr.List(context.Background(), d)
		if err != nil || len(l.Entries) != 2 || l.Find("a").File.Size != 3 || l.Find("b").Dir == nil || l.Find("c") != nil {
			t.Fatal(l, err)
		}
	}
	if calls != 1 {
		t.Errorf("listed %d times", calls)
	}
}
