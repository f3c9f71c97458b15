package cli

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"cbt/internal/fail"
	"cbt/qcow2"
)

func touch(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.WriteFile(name, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestParseRef(t *testing.T) {
	t.Chdir(t.TempDir())
	touch(t, "disk", "both", "both@monday", "a@b", "lvm:vg0", "new\nline", "comma,é disk", "@", "@odd")
	has := func(path, name string) bool { return path == "both" && name == "monday" }
	long := strings.Repeat("n", 300)
	for _, c := range []struct {
		ref  string
		opt  refOptions
		want reference
	}{
		{"disk", refOptions{}, reference{path: "disk"}},
		{"nothing", refOptions{}, reference{path: "nothing"}},
		{"disk@monday", refOptions{}, reference{path: "disk", byName: true, want: "monday"}},
		{"disk@" + long, refOptions{}, reference{path: "disk", byName: true, want: long}},
		{"disk@x/y", refOptions{}, reference{path: "disk", byName: true, want: "x/y"}},
		{"disk@Grüße, \n", refOptions{}, reference{path: "disk", byName: true, want: "Grüße, \n"}},
		{"a@b", refOptions{}, reference{path: "a@b"}},
		{"a@b@c", refOptions{}, reference{path: "a@b", byName: true, want: "c"}},
		{"both@tuesday", refOptions{}, reference{path: "both", byName: true, want: "tuesday"}},
		{"both@monday", refOptions{Path: true}, reference{path: "both@monday"}},
		{"both", refOptions{Snapshot: "monday"}, reference{path: "both", byName: true, want: "monday"}},
		{"both@monday", refOptions{Snapshot: "x"}, reference{path: "both@monday", byName: true, want: "x"}},
		{"disk", refOptions{SnapshotID: "3"}, reference{path: "disk", byID: true, want: "3"}},
		{"disk", refOptions{Snapshot: "a@b"}, reference{path: "disk", byName: true, want: "a@b"}},
		{"new\nline@x", refOptions{}, reference{path: "new\nline", byName: true, want: "x"}},
		{"comma,é disk@x", refOptions{}, reference{path: "comma,é disk", byName: true, want: "x"}},
		{"./lvm:vg0", refOptions{}, reference{path: "./lvm:vg0"}},
		{"@", refOptions{}, reference{path: "@"}},
		{"@odd", refOptions{}, reference{path: "@odd"}},
		{"@missing", refOptions{}, reference{path: "@missing"}},
	} {
		if got, err := parseRef(c.ref, c.opt, has); err != nil || got != c.want {
			t.Errorf("parseRef(%q, %+v) = %+v, %v; want %+v", c.ref, c.opt, got, err, c.want)
		}
	}
	for _, c := range []struct {
		ref  string
		opt  refOptions
		code int
		want string
	}{
		{"", refOptions{}, fail.UsageCode, "empty"},
		{"both@monday", refOptions{}, fail.UsageCode, "(--path), or snapshot monday of both (--snapshot monday)"},
		{"both@monday", refOptions{prefix: "old-"}, fail.UsageCode, "(--old-path), or snapshot monday of both (--old-snapshot monday)"},
		{"disk@", refOptions{}, fail.UsageCode, "no snapshot name"},
		{"nothing@x", refOptions{}, fail.Failed, "no file nothing that"},
		{"disk@a@b", refOptions{}, fail.Failed, "no file disk@a that"},
		{"lvm:vg0", refOptions{}, fail.UsageCode, "logical volume"},
		{"lvm:vg0/vm1", refOptions{}, fail.UsageCode, "logical volume"},
		{"thin:3", refOptions{}, fail.UsageCode, "thin pool"},
		{"disk", refOptions{Snapshot: "a", SnapshotID: "1"}, fail.UsageCode, "--snapshot and --snapshot-id exclude each other"},
	} {
		r, err := parseRef(c.ref, c.opt, has)
		if err == nil {
			t.Errorf("parseRef(%q, %+v) = %+v, want an error", c.ref, c.opt, r)
			continue
		}
		if code := (&app{started: true}).exitCode(t.Context(), err); code != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("parseRef(%q, %+v): exit %d, %v; want exit %d and %q", c.ref, c.opt, code, err, c.code, c.want)
		}
	}
}

func TestFindSnapshot(t *testing.T) {
	table := []qcow2.Snapshot{
		{ID: "1", Name: "daily", Date: time.Unix(0, 0).UTC()},
		{ID: "2", Name: "daily", Date: time.Unix(86400, 0).UTC()},
		{ID: "3", Name: "1"},
		{ID: "7", Name: "\x1b[2J"},
		{ID: "7", Name: "other"},
	}
	for want, r := range map[int]reference{
		0: {byID: true, want: "1"}, 1: {byID: true, want: "2"}, 2: {byName: true, want: "1"}, 3: {byName: true, want: "\x1b[2J"},
		4: {byName: true, want: "other"},
	} {
		if i, err := r.find(table, refOptions{}); err != nil || i != want {
			t.Errorf("%+v: %d, %v; want %d", r, i, err, want)
		}
	}
	for _, c := range []struct {
		r    reference
		code int
		want string
	}{
		{reference{byName: true, want: "daily"}, fail.UsageCode, "--snapshot-id: id 1 daily of 1970-01-01 00:00:00Z, id 2 daily of 1970-01-02"},
		{reference{byName: true, want: "3"}, fail.UsageCode, "one has that id: --snapshot-id 3"},
		{reference{byName: true, want: "weekly"}, fail.Failed, `id 7 $'\033[2J'`},
		{reference{byID: true, want: "7"}, fail.Failed, "damaged"},
		{reference{byID: true, want: "daily"}, fail.Failed, "no snapshot daily"},
	} {
		i, err := c.r.find(table, refOptions{})
		if err == nil {
			t.Errorf("%+v: %d, want an error", c.r, i)
			continue
		}
		if code := (&app{started: true}).exitCode(t.Context(), err); code != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: exit %d, %v; want exit %d and %q", c.r, code, err, c.code, c.want)
		}
	}
	if _, err := (reference{byName: true, want: "x"}).find(nil, refOptions{}); err == nil || !strings.Contains(err.Error(), "has no snapshots") {
		t.Errorf("no table: %v", err)
	}
	var many []qcow2.Snapshot
	for i := range 1000 {
		many = append(many, qcow2.Snapshot{ID: strconv.Itoa(i), Name: "n", Date: time.Unix(int64(i), 0)})
	}
	if _, err := (reference{byName: true, want: "x"}).find(many, refOptions{}); err == nil ||
		!strings.Contains(err.Error(), "there are: id 999 n of") || !strings.HasSuffix(err.Error(), "and 990 older (`cbt info` lists them)") {
		t.Errorf("a thousand: %v", err)
	}
}
