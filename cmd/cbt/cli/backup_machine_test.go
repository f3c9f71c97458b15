package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cbt/cbt"
	"cbt/internal/fail"
	"cbt/internal/testtool"
)

// twoImages makes v1/disk.qcow2 and v2/disk.qcow2, other bytes under one name, and
// a directory for deltas; night takes a snapshot of both.
func twoImages(t *testing.T) (v1, v2, store string, night func(name string)) {
	t.Helper()
	testtool.Need(t, "qemu-img")
	testtool.Need(t, "qemu-io")
	dir := t.TempDir()
	v1, v2, store = filepath.Join(dir, "v1", "disk.qcow2"), filepath.Join(dir, "v2", "disk.qcow2"), filepath.Join(dir, "store")
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	n := 0
	return v1, v2, store, func(name string) {
		t.Helper()
		n++
		for i, v := range []string{v1, v2} {
			if n == 1 {
				if err := os.Mkdir(filepath.Dir(v), 0o700); err != nil {
					t.Fatal(err)
				}
				tool(t, "qemu-img", "create", "-q", "-f", "qcow2", v, "4M")
			}
			tool(t, "qemu-io", "-f", "qcow2", "-c", "write -q -P "+string(rune('1'+n))+string(rune('1'+i))+" 64k 8k", v)
			tool(t, "qemu-img", "snapshot", "-c", name, v)
		}
	}
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// must runs cbt, which must end with code.
func must(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	got, stdout, stderr := run(t, args...)
	if got != code {
		t.Fatalf("cbt %s: exit %d, want %d: %s", strings.Join(args, " "), got, code, stderr)
	}
	return strings.TrimSpace(stdout), stderr
}

// withoutIdentity makes of a delta what older versions wrote.
func withoutIdentity(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		withHeader(t, path, func(h *cbt.Header) {
			h.Machine = ""
			for i := range h.Streams {
				h.Streams[i].Source = ""
			}
		})
	}
}

// withHeader writes a delta again with another header.
func withHeader(t *testing.T, path string, change func(*cbt.Header)) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d, err := cbt.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	h, merges, err := cbt.Merged([]*cbt.Delta{d})
	if err != nil {
		t.Fatal(err)
	}
	change(&h)
	var out bytes.Buffer
	if _, err := cbt.WriteMerges(t.Context(), &out, h, merges, cbt.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// machinesIn are the machines that the headers of a directory name, in the order
// of log.
func machinesIn(t *testing.T, dir string) (list []string) {
	t.Helper()
	out, _ := must(t, fail.Done, "log", "--json", dir)
	var all []struct{ Machine string }
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		list = append(list, d.Machine)
	}
	return list
}

// A directory of older deltas, which name no machine, is adopted by a point that
// matches, and by nothing else.
func TestBackupAdoptsOlderDeltas(t *testing.T) {
	v1, v2, store, night := twoImages(t)
	night("n1")
	first, _ := must(t, fail.Done, "backup", v1+"@n1", store)
	withoutIdentity(t, first)
	night("n2")
	if _, said := must(t, fail.UsageCode, "backup", v2+"@n2", store); !strings.Contains(said, "--continue disk ") || !strings.Contains(said, "--name disk-2 ") {
		t.Fatal(said)
	}
	if _, said := must(t, fail.Done, "backup", v1+"@n2", store); !strings.Contains(said, "compared with "+v1+"@n1") {
		t.Fatal(said)
	}
	if got := machinesIn(t, store); got[0] != "" || !strings.HasPrefix(got[1], "file:") {
		t.Fatal(got)
	}
	// A name takes the older deltas along that have it in their files' names.
	tool(t, "qemu-img", "snapshot", "-d", "n1", v1)
	tool(t, "qemu-img", "snapshot", "-d", "n2", v1)
	night("n3")
	if _, said := must(t, fail.Done, "backup", "--name", "disk", v1+"@n3", store); !strings.Contains(said, "compared with the content of") {
		t.Fatal(said)
	}
	must(t, fail.UsageCode, "backup", v2+"@n3", store)
}

// Older deltas that another machine goes on from are that machine's: a new one that is
// called as their files are takes nothing over, and prune drops nobody's newest point
// for it.
func TestBackupNameTakesNoOtherMachine(t *testing.T) {
	for _, name := range []string{"web", ""} {
		v1, v2, store, night := twoImages(t)
		night("n1")
		first, _ := must(t, fail.Done, "backup", v1+"@n1", store)
		withoutIdentity(t, first)
		night("n2")
		args := []string{"backup", v1 + "@n2", store}
		if name != "" {
			args = []string{"backup", "--name", name, v1 + "@n2", store}
		}
		newest, _ := must(t, fail.Done, args...)
		if _, said := must(t, fail.Done, "backup", "--name", "disk", v2+"@n2", store); !strings.Contains(said, "in full: ") {
			t.Fatal(said)
		}
		tool(t, "qemu-img", "snapshot", "-d", "n1", v2)
		night("n3")
		if _, said := must(t, fail.Done, "backup", "--name", "disk", v2+"@n3", store); !strings.Contains(said, "compared with "+v2+"@n2") {
			t.Fatal(said)
		}
		if out, _ := must(t, fail.Done, "log", "--machine", "disk", store); strings.Count(out, ", of disk") != 2 || strings.Count(out, ".cbt") != 2 {
			t.Fatal(out)
		}
		must(t, fail.Done, "prune", store, "--keep-last", "1", "--rebase-every", "0")
		must(t, fail.Done, "verify", newest)
		args[len(args)-2] = v1 + "@n3"
		if _, said := must(t, fail.Done, args...); !strings.Contains(said, "compared with "+v1+"@n2") {
			t.Fatal(said)
		}
	}
}

// A name alone that takes older deltas along is said: they may be another machine's.
func TestBackupNameTakesOlderDeltas(t *testing.T) {
	v1, v2, store, night := twoImages(t)
	night("n1")
	first, _ := must(t, fail.Done, "backup", v1+"@n1", store)
	withoutIdentity(t, first)
	const words = "taken for older ones of"
	if _, said := must(t, fail.Done, "backup", "-q", "--name", "disk", "--dry-run", v2+"@n1", store); !strings.Contains(said, words) {
		t.Fatal(said)
	}
	night("n2")
	if _, said := must(t, fail.Done, "backup", "--name", "disk", v1+"@n2", store); strings.Contains(said, words) {
		t.Fatal(said) // by its point
	}
}

// Two machines that an older version chained onto one another are two from now
// on, and prune drops no night of one for the other's.
func TestBackupPartsWhatWasMixed(t *testing.T) {
	v1, v2, store, night := twoImages(t)
	night("n1")
	first, _ := must(t, fail.Done, "backup", v1+"@n1", store)
	second := filepath.Join(store, "disk-20261101T023000Z-0123456789ab.cbt")
	must(t, fail.Done, "diff", first, v2+"@n1", "-o", second)
	withoutIdentity(t, first, second)
	night("n2")
	a, _ := must(t, fail.Done, "backup", v1+"@n2", store)
	b, _ := must(t, fail.Done, "backup", v2+"@n2", store)
	got := machinesIn(t, store)
	slices.Sort(got)
	if got[0] != "" || got[1] != "" || got[2] == got[3] {
		t.Fatal(got)
	}
	must(t, fail.Done, "prune", store, "--keep-last", "1", "--rebase-every", "0")
	for _, d := range []string{a, b} {
		must(t, fail.Done, "verify", d)
	}
}

// Overlays over one base that was backed up too are machines of their own.
func TestBackupOfOverlaysOverOneBase(t *testing.T) {
	testtool.Need(t, "qemu-img")
	testtool.Need(t, "qemu-io")
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	store := in("store")
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	tool(t, "qemu-img", "create", "-q", "-f", "raw", in("base.raw"), "4M")
	tool(t, "qemu-io", "-f", "raw", "-c", "write -q -P 7 0 64k", in("base.raw"))
	base, _ := must(t, fail.Done, "backup", in("base.raw"), store)
	var night []string
	for i, name := range []string{"vm1", "vm2"} {
		img := in(name + ".qcow2")
		tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", img)
		tool(t, "qemu-io", "-f", "qcow2", "-c", "write -q -P 9 "+string(rune('1'+i))+"M 8k", img)
		must(t, fail.UsageCode, "backup", "--frozen", img, store)
		out, said := must(t, fail.Done, "backup", "--frozen", "--name", name, img, store)
		if !strings.Contains(said, "overlay") {
			t.Fatal(said)
		}
		night = append(night, out)
	}
	if _, said := must(t, fail.WrongBaseCode, "merge", base, night[0], "-o", in("x.cbt")); !strings.Contains(said, "are of two machines, file:") {
		t.Fatal(said)
	}
	must(t, fail.Done, "merge", base, night[0], "--name", "vm1", "-o", in("x.cbt"))
	if out, _ := must(t, fail.Done, "info", in("x.cbt")); !strings.Contains(out, "vm1\n") {
		t.Fatal(out)
	}
	// The base's own delta is lost: what builds on it is not the base.
	lost := filepath.Join(dir, "lost")
	tool(t, "mv", base, lost)
	must(t, fail.UsageCode, "backup", in("base.raw"), store)
	tool(t, "mv", lost, base)
	// Each is one night of one day.
	must(t, fail.Done, "prune", store, "--keep-daily", "7", "--rebase-every", "0")
	for _, d := range append(night, base) {
		must(t, fail.Done, "verify", d)
	}
}

// A copy of the image goes on under its name, or once it was said what it is.
func TestBackupOfCopies(t *testing.T) {
	v1, v2, store, night := twoImages(t)
	night("n1")
	must(t, fail.Done, "backup", "--name", "vm1", v1+"@n1", store)
	moved := filepath.Join(filepath.Dir(v1), "copy.qcow2")
	tool(t, "cp", v1, moved)
	must(t, fail.UsageCode, "backup", moved+"@n1", store)
	tool(t, "qemu-img", "snapshot", "-c", "n2", moved)
	file, said := must(t, fail.Done, "backup", "--name", "vm1", moved+"@n2", store)
	if !strings.Contains(said, "compared with the content of vm1-") || !strings.HasPrefix(filepath.Base(file), "vm1-") {
		t.Fatal(said)
	}
	// Known by now, with and without the name.
	tool(t, "qemu-img", "snapshot", "-c", "n3", moved)
	if file, _ := must(t, fail.Done, "backup", moved+"@n3", store); !strings.HasPrefix(filepath.Base(file), "vm1-") {
		t.Fatal(file)
	}
	// Another machine under that name, by mistake: warned of when the first comes back.
	night("n4")
	must(t, fail.Done, "backup", "--name", "vm1", v2+"@n4", store)
	if _, said := must(t, fail.Done, "backup", "--name", "vm1", moved+"@n3", store); strings.Contains(said, "warning") && !strings.Contains(said, "was read from another disk the last time") {
		t.Fatal(said)
	}
	tool(t, "qemu-img", "snapshot", "-c", "n5", moved)
	if _, said := must(t, fail.Done, "backup", "--name", "vm1", moved+"@n5", store); !strings.Contains(said, "disk/0 of vm1 was read from another disk the last time") {
		t.Fatal(said)
	}
	if got := machinesIn(t, store); len(got) != 5 {
		t.Fatal(got)
	}
}
