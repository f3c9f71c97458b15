package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/retention"
	"cbt/sparse"
)

// bytesView is an image in memory.
type bytesView []byte

func (m bytesView) Size() int64 { return int64(len(m)) }

func (m bytesView) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, m.Size())
	return copy(p, m[min(off, m.Size()):]), eof
}

func (m bytesView) Extents(off, n int64) sparse.Seq {
	return sparse.Of(sparse.Extent{Off: off, Len: n, Kind: sparse.Data})
}

// pruneDir makes deltas of one size by hand: "NAME: STREAM FROM TO, ..." where
// FROM "-" is full. The bytes at a point are its name again and again, or, in
// POINT=TEXT, the text: in FROM what the delta takes for the old ones. Their points have no instants; each is an hour younger than
// the one before.
func pruneDir(t *testing.T, deltas ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i, text := range deltas {
		name, rest, _ := strings.Cut(text, ": ")
		h := cbt.Header{Version: cbt.Version, Consistency: cbt.Crash}
		var src []cbt.Source
		for _, part := range strings.Split(rest, ", ") {
			f := strings.Fields(part)
			to, m := namedBytes(f[2])
			s := cbt.Stream{Name: f[0], Size: m.Size(), To: to, Full: f[1] == "-"}
			source := cbt.Source{New: m}
			if !s.Full {
				from, old := namedBytes(f[1])
				s.From = &cbt.Base{Point: from, Size: m.Size()}
				source.Changed = m.Extents(0, m.Size())
				if from != f[1] {
					source.Old = old
				}
			}
			h.Streams, src = append(h.Streams, s), append(src, source)
		}
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := cbt.Write(context.Background(), f, h, src, cbt.Options{}); err != nil {
			t.Fatal(err)
		}
		at := time.Date(2026, 11, 23, i, 0, 0, 123, time.UTC)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func namedBytes(text string) (point string, content bytesView) {
	point, with, ok := strings.Cut(text, "=")
	if !ok {
		with = point
	}
	return point, bytesView(bytes.Repeat([]byte(with), 9000)[:9000])
}

// cbtRun runs a command line and returns its exit code and both outputs.
func cbtRun(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	code := Run(t.Context(), Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out}, args)
	return code, out.String()
}

func TestPrune(t *testing.T) {
	for _, test := range []struct {
		name   string
		deltas []string
		rules  string
		code   int
		left   string
		says   string
	}{
		{"a chain", []string{"0.cbt: disk/0 - a", "1.cbt: disk/0 a b", "2.cbt: disk/0 b c"}, "--keep-last 2", 0, "1.cbt 2.cbt", "(of the file)"},
		{"two ways to a point that stays: the longer goes",
			[]string{"0.cbt: disk/0 - a", "1.cbt: disk/0 a b", "2.cbt: disk/0 b a", "3.cbt: disk/0 a c"}, "--keep-last 1 --keep-yearly 2", 0, "0.cbt 3.cbt", "another delta leads to its point: 0.cbt"},
		{"two ways to a point that falls away: the shorter is merged",
			[]string{"0.cbt: disk/0 - a", "1.cbt: disk/0 a b", "2.cbt: disk/0 b c", "across.cbt: disk/0 a c", "3.cbt: disk/0 c d"}, "--keep-last 1", 0, "3.cbt", ""},
		{"a copy", []string{"0.cbt: disk/0 - a", "copy.cbt: disk/0 - a", "1.cbt: disk/0 a b"}, "--keep-last 1", 0, "1.cbt", ""},
		{"a disk comes, another goes, the state is always whole",
			[]string{"0.cbt: disk/0 - a, disk/x - a, vmstate - a", "1.cbt: disk/0 a b, disk/y - b, vmstate - b", "2.cbt: disk/0 b c, disk/y b c, vmstate - c"}, "--keep-last 1", 0, "2.cbt", ""},
		{"streams that follow different deltas", []string{"0.cbt: disk/0 - a", "x.cbt: disk/x - a", "1.cbt: disk/0 a b, disk/x a b"}, "--keep-last 1", 1, "0.cbt 1.cbt x.cbt", "1.cbt: its streams follow different deltas"},
		{"a circle", []string{"0.cbt: disk/0 b a", "1.cbt: disk/0 a b"}, "--keep-last 1", 1, "0.cbt 1.cbt", "no full delta"},
		{"what a delta replaces is not what its parent holds", []string{"0.cbt: disk/0 - a", "1.cbt: disk/0 a=z b"}, "--keep-last 1", 1, "0.cbt 1.cbt", "1.cbt: what it replaces is not what its parent holds"},
		{"what a delta replaces is what its parent holds", []string{"0.cbt: disk/0 - a", "1.cbt: disk/0 a=a b"}, "--keep-last 1", 0, "1.cbt", ""},
		{"two ways that lead to other bytes", []string{"0.cbt: disk/0 - a", "1.cbt: disk/0 a b=x", "2.cbt: disk/0 - b", "3.cbt: disk/0 b c"}, "--keep-last 1", 1,
			"0.cbt 1.cbt 2.cbt 3.cbt", "and not to the same bytes: first at offset 0"},
		{"two machines of one name are two groups",
			[]string{"vm-20261120T000000Z-0123456789aa.cbt: disk/0 - a", "vm-20261120T000000Z-0123456789bb.cbt: disk/0 - z", "vm-20261121T000000Z-0123456789aa.cbt: disk/0 a b", "vm-20261121T000000Z-0123456789bb.cbt: disk/0 z y"}, "--keep-last 1", 0, "vm-20261121T000000Z-0123456789aa.cbt vm-20261121T000000Z-0123456789bb.cbt", "vm from 2026-11-23 01:00:00"},
		{"a full delta goes on with the line of its name",
			[]string{"vm-20261120T000000Z-0123456789aa.cbt: disk/0 - a", "vm-20261121T000000Z-0123456789aa.cbt: disk/0 a b", "vm-20261122T000000Z-0123456789aa.cbt: disk/0 - c", "vm-20261123T000000Z-0123456789aa.cbt: disk/0 c d"}, "--keep-last 1", 0, "vm-20261123T000000Z-0123456789aa.cbt", "vm: "},
		{"of an image that was not frozen", []string{"vm-20261123T000000Z-0123456789ab.cbt: disk/0 - a", "vm-20261124T000000Z-0123456789ab.cbt: disk/0 z b"}, "--keep-last 1", 1,
			"vm-20261123T000000Z-0123456789ab.cbt vm-20261124T000000Z-0123456789ab.cbt", "vm: left alone: "},
	} {
		dir := pruneDir(t, test.deltas...)
		times := map[string]time.Time{}
		for _, name := range dirNames(t, dir) {
			st, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			times[name] = st.ModTime()
		}
		code, out := cbtRun(t, append([]string{"prune", dir}, strings.Fields(test.rules)...)...)
		if left := strings.Join(dirNames(t, dir), " "); code != test.code || left != test.left || !strings.Contains(out, test.says) {
			t.Errorf("%s: exit %d, left %s\n%s", test.name, code, left, out)
			continue
		}
		for _, name := range dirNames(t, dir) {
			if st, err := os.Stat(filepath.Join(dir, name)); err != nil || !st.ModTime().Equal(times[name]) {
				t.Errorf("%s: %s has another time (%v)", test.name, name, err)
			}
		}
		if test.code != 0 {
			continue
		}
		if code, out := cbtRun(t, "verify", dir); code != 0 {
			t.Errorf("%s: verify: exit %d\n%s", test.name, code, out)
		}
		for _, text := range test.deltas {
			name, rest, _ := strings.Cut(text, ": ")
			if !slices.Contains(strings.Fields(test.left), name) {
				continue
			}
			for _, part := range strings.Split(rest, ", ") {
				f := strings.Fields(part)
				if code, out := cbtRun(t, "cat", filepath.Join(dir, name)+"@"+f[0]); code != 0 || out != strings.Repeat(f[2], 9000)[:9000] {
					t.Errorf("%s: %s of %s: exit %d, %d bytes", test.name, f[0], name, code, len(out))
				}
			}
		}
	}
}

// What an unreadable delta builds on may be what would fall away.
func TestPruneBesideUnreadable(t *testing.T) {
	for what, spoil := range map[string]func(path string) error{
		"cut":       func(path string) error { return os.Truncate(path, 100) },
		"a link":    func(path string) error { return errors.Join(os.Rename(path, path+".away"), os.Symlink("gone", path)) },
		"an option": func(path string) error { return os.WriteFile(path, []byte("no delta"), 0o600) },
	} {
		dir := pruneDir(t, "0.cbt: disk/0 - a", "1.cbt: disk/0 a b", "2.cbt: disk/0 b c", "3.cbt: disk/0 a d")
		if err := spoil(filepath.Join(dir, "3.cbt")); err != nil {
			t.Fatal(err)
		}
		code, out := cbtRun(t, "prune", dir, "--keep-last", "1")
		if _, err := os.Stat(filepath.Join(dir, "0.cbt")); code != fail.Failed || err != nil || !strings.Contains(out, "3.cbt cannot be read, and may build on what would fall away") {
			t.Errorf("%s: exit %d, %v\n%s", what, code, err, out)
		}
	}
}

func dirNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// What a dry run says is enough.
func TestPruneSaysHowMuch(t *testing.T) {
	var deltas []string
	for i := range 30 {
		deltas = append(deltas, fmt.Sprintf("%d.cbt: disk/0 %d %d", i, i-1, i))
	}
	deltas[0] = "0.cbt: disk/0 - 0"
	p := &pruner{app: &app{}, dir: pruneDir(t, deltas...)}
	list, err := p.scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g := groupPruned(list, nil)[0]
	if err := p.plan(g, retention.Rules{Last: 2, Hourly: 7}); err != nil {
		t.Fatal(err)
	}
	before := dirSize(t, p.dir)
	peak, wrote := int64(0), int64(0)
	for _, s := range g.steps {
		was := dirSize(t, p.dir)
		if !s.Merge() {
			err = p.remove(g.Deltas[s.Into])
		} else if err = p.mergeInto(t.Context(), g, s); err == nil {
			wrote += g.Deltas[s.Into].Size
			peak = max(peak, was-before+g.Deltas[s.Into].Size)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if wrote == 0 || wrote > g.Write || peak > g.Space {
		t.Fatalf("%d bytes written, %d more for a time; said were %d and %d", wrote, peak, g.Write, g.Space)
	}
}

func dirSize(t *testing.T, dir string) (n int64) {
	for _, name := range dirNames(t, dir) {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		n += st.Size()
	}
	return n
}
