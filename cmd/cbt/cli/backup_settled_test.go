package cli

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/fail"
)

// One run under a wrong name stops the runs without one, until one was told: then
// they go on as before, and after a prune that leaves one of each too.
func TestBackupAfterAWrongName(t *testing.T) {
	v1, v2, store, night := twoImages(t)
	night("n1")
	must(t, fail.Done, "backup", "--name", "vm1", v1+"@n1", store)
	must(t, fail.Done, "backup", "--name", "vm2x", v2+"@n1", store)
	night("n2")
	if _, said := must(t, fail.Done, "backup", "-q", "--name", "vm1", v2+"@n2", store); !strings.Contains(said, "was backed up as vm2x so far, and vm1 is the name of another disk there") ||
		!strings.Contains(said, "the next run with --continue vm2x instead of --name vm1 goes on") || strings.Contains(said, "from now on") {
		t.Fatal(said)
	}
	night("n3")
	if _, said := must(t, fail.UsageCode, "backup", v2+"@n3", store); !strings.Contains(said, "--continue vm2x ") {
		t.Fatal(said)
	}
	must(t, fail.Done, "backup", "--continue", "vm2x", v2+"@n3", store)
	for _, n := range []string{"n4", "n5"} {
		night(n)
		if file, _ := must(t, fail.Done, "backup", v2+"@"+n, store); !strings.HasPrefix(filepath.Base(file), "vm2x-") {
			t.Fatal(file)
		}
		must(t, fail.Done, "prune", store, "--keep-last", "1", "--rebase-every", "0")
	}
	if file, _ := must(t, fail.Done, "backup", v1+"@n5", store); !strings.HasPrefix(filepath.Base(file), "vm1-") {
		t.Fatal(file)
	}
}

// A machine that gets another name, which no other disk has, goes on under it.
func TestBackupAfterANewName(t *testing.T) {
	v1, _, store, night := twoImages(t)
	night("n1")
	must(t, fail.Done, "backup", "--name", "vm1", v1+"@n1", store)
	night("n2")
	if _, said := must(t, fail.Done, "backup", "-q", "--name", "web", v1+"@n2", store); !strings.Contains(said, "was backed up as vm1 so far, and is web from now on") {
		t.Fatal(said)
	}
	night("n3")
	if file, _ := must(t, fail.Done, "backup", v1+"@n3", store); !strings.HasPrefix(filepath.Base(file), "web-") {
		t.Fatal(file)
	}
}

// What was backed up before the image was copied is not missing; what is, is.
func TestBackupOfACopyMissesNothing(t *testing.T) {
	v1, _, store, night := twoImages(t)
	var files []string
	for _, n := range []string{"n1", "n2", "n3"} {
		night(n)
		file, _ := must(t, fail.Done, "backup", "--name", "vm1", v1+"@"+n, store)
		files = append(files, file)
	}
	moved := filepath.Join(filepath.Dir(v1), "copy.qcow2")
	tool(t, "cp", v1, moved)
	tool(t, "qemu-img", "snapshot", "-c", "n4", moved)
	backup := func() (snapshots []string) {
		out, _ := must(t, fail.Done, "backup", "--json", "--name", "vm1", moved+"@n4", store)
		var result struct{ Missing []struct{ Snapshot string } }
		if err := json.Unmarshal([]byte(out), &result); err != nil {
			t.Fatal(err)
		}
		for _, m := range result.Missing {
			snapshots = append(snapshots, filepath.Base(m.Snapshot))
		}
		return snapshots
	}
	if got := backup(); len(got) > 0 {
		t.Fatal(got)
	}
	tool(t, "rm", files[2])
	if got := backup(); len(got) != 1 || got[0] != "copy.qcow2@n3" {
		t.Fatal(got)
	}
}
