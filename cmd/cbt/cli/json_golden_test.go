//go:build linux

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"cbt/internal/sample"
)

// What every command prints, with --json and without, is in testdata/golden: cases.txt has the command lines,
// json.txt and text.txt have what they printed. TestGolden runs them and compares.
//
// A case begins with a line "== COMMAND: TITLE". Each line below it is run by sh, in a new directory with out/, tmp/, m/
// and what goldenSources makes in src/. The golden files show each line after "$ ", then what it wrote to stdout,
// what it wrote to stderr (after "2> "), and its exit code if that is not 0. "[fuse]" in a title means that the case
// mounts something, "[fixed]" that no point or ID in it depends on this machine, so they are compared too: see steady.
//
// The golden files were written by the program before its engine had packages of its own. They change only on purpose:
//
//	CBT_GOLDEN=write go test -run TestGolden ./cmd/cbt/cli
//
// as root, who can mount. Look at the difference before you commit it.
const goldenDir = "testdata/golden"

// goldenForms are the golden files, and what cbt is run with for each.
var goldenForms = map[string]string{"json.txt": "--json", "text.txt": ""}

type goldenCase struct {
	command     string // without "cbt"
	title       string // all of the first line
	lines       []string
	fuse, fixed bool
}

func TestGolden(t *testing.T) {
	write := os.Getenv("CBT_GOLDEN") == "write"
	cases := readGoldenCases(t)
	dir := goldenSources(t)
	for file, flag := range goldenForms {
		golden := readGolden(t, filepath.Join(goldenDir, file))
		var all bytes.Buffer
		for _, c := range cases {
			want := golden[c.title]
			got := want
			t.Run(strings.TrimSuffix(file, ".txt")+"/"+c.title, func(t *testing.T) {
				if c.fuse && !canMount() {
					t.Skip("cannot mount")
				}
				got = c.run(t, dir, flag)
				if got != want && !write {
					t.Errorf("%s of %s/%s: %s", c.title, goldenDir, file, firstDifference(got, want))
				}
			})
			fmt.Fprintf(&all, "== %s\n%s\n", c.title, got)
			delete(golden, c.title)
		}
		for title := range golden {
			if !write {
				t.Errorf("%s/%s has %q, which is no case", goldenDir, file, title)
			}
		}
		if write {
			if err := os.WriteFile(filepath.Join(goldenDir, file), all.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Every command that is registered has a case, and every case is of a command.
func TestGoldenHasEveryCommand(t *testing.T) {
	names := everyName()
	has := map[string]bool{}
	for _, c := range readGoldenCases(t) {
		has[c.command] = true
		if !slices.Contains(names, c.command) {
			t.Errorf("%s/cases.txt has a case of %q, which is no command", goldenDir, c.command)
		}
		if !strings.Contains("\n"+strings.Join(c.lines, "\n"), strings.TrimSuffix("cbt "+c.command, " ")) {
			t.Errorf("the case %q does not run `cbt %s`", c.title, c.command)
		}
	}
	for _, name := range names {
		if !has[name] {
			t.Errorf("%s/cases.txt has no case of `cbt %s`: add one, and see json_golden_test.go", goldenDir, name)
		}
	}
}

func readGoldenCases(t *testing.T) (cases []*goldenCase) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(goldenDir, "cases.txt"))
	if err != nil {
		t.Fatal(err)
	}
	titles := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		title, ok := strings.CutPrefix(line, "== ")
		switch {
		case ok:
			name, _, ok := strings.Cut(title, ":")
			if !ok || titles[title] {
				t.Fatalf("%s/cases.txt: %q is not \"== COMMAND: TITLE\", or there twice", goldenDir, line)
			}
			titles[title] = true
			cases = append(cases, &goldenCase{
				command: strings.TrimPrefix(strings.TrimPrefix(name, "cbt"), " "), title: title,
				fuse: strings.Contains(title, "[fuse]"), fixed: strings.Contains(title, "[fixed]"),
			})
		case line == "" || strings.HasPrefix(line, "#"):
		case len(cases) == 0:
			t.Fatalf("%s/cases.txt: %q is in no case", goldenDir, line)
		default:
			c := cases[len(cases)-1]
			c.lines = append(c.lines, line)
		}
	}
	return cases
}

// readGolden returns what the cases of a golden file print, by their titles.
func readGolden(t *testing.T, path string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && os.Getenv("CBT_GOLDEN") != "write" {
		t.Fatal(err)
	}
	golden := map[string]string{}
	for _, part := range strings.Split("\n"+string(b), "\n== ")[1:] {
		title, text, _ := strings.Cut(part, "\n")
		golden[title] = strings.TrimRight(text, "\n") + "\n"
	}
	return golden
}

// run runs the lines of a case and returns what the golden file should have of it.
func (c *goldenCase) run(t *testing.T, sources, flag string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"bin", "out", "tmp", "m"} {
		if err := os.Mkdir(at(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(sources, "src"), at("src")); err != nil {
		t.Fatal(err)
	}
	wrapper := "#!/bin/sh\nexec " + filepath.Join(sources, "bin/cbt") + " " + flag + " \"$@\"\n"
	if err := os.WriteFile(at("bin/cbt"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, line := range c.lines {
		var out, errOut bytes.Buffer
		sh := exec.CommandContext(t.Context(), "sh", "-c", line)
		sh.Dir, sh.Stdout, sh.Stderr = dir, &out, &errOut
		sh.Env = []string{
			"PATH=" + at("bin") + ":" + os.Getenv("PATH"), "TMPDIR=" + at("tmp"), "HOME=" + dir, "CBT_LOCK_DIR=" + at("tmp"), "TZ=UTC", "LC_ALL=C",
			"CBT_TEST_INSTANT=mtime", "GORACE=" + os.Getenv("GORACE"), "real=" + filepath.Join(sources, "bin/cbt"), "pv=--pv src/0.img --pv src/1.img --pv src/2.img",
		}
		err := sh.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "$ %s\n%s", line, marked("", out.String()))
		text.WriteString(marked("2> ", errOut.String()))
		if exit != nil {
			fmt.Fprintf(&text, "exit %d\n", exit.ExitCode())
		}
	}
	return steady(text.String(), sources, dir, c.fixed)
}

// marked puts a mark before each line, and says where the last line has no end.
func marked(mark, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(mark + strings.TrimSuffix(line, "\n"))
		if !strings.HasSuffix(line, "\n") {
			b.WriteString(`\`)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// goldenSteady has what differs from machine to machine and from run to run, wherever it stands, and what stands for it
// in the golden files. Nothing else is replaced but directories and, where a case is not [fixed], points and IDs.
var goldenSteady = []struct {
	pattern *regexp.Regexp
	by      string
}{
	// How many blocks a file has, as stat says.
	{regexp.MustCompile(`("actual-size": ?)\d+`), "${1}SIZE"},
	{regexp.MustCompile(`(?m)^(disk size: +).*`), "${1}SIZE"},
	// How long a run took.
	{regexp.MustCompile(`(?m)(, | in )[0-9.hm]*[0-9](?:s|ms|µs)(:|"|$)`), "${1}TIME${2}"},
	// How old a delta is.
	{regexp.MustCompile(`\b\d+[dh]\d+[hm]\b`), "AGE"},
	{regexp.MustCompile(`=\d+s;`), "=AGE;"},
	// The program itself.
	{regexp.MustCompile(`go1\.[0-9a-z.]+`), "GO"},
	{regexp.MustCompile(`\b` + runtime.GOARCH + `\b`), "ARCH"},
}

// goldenID is a point, an ID or what they begin with in the name of a file, and where an image comes from.
var goldenID = regexp.MustCompile(`\b[0-9a-f]{64}\b|Z-[0-9a-f]{12}\b|\bfile:[0-9a-f]{32}\b`)

// steady replaces what differs from machine to machine in what a case printed. Points and IDs of images depend on
// their inodes, times and devices: each gets a number, so equal ones stay equal. In a fixed case they are those of the deltas in
// testdata/golden/deltas, which were made once, and of what is made of them.
func steady(text, sources, dir string, fixed bool) string {
	text = strings.NewReplacer(dir, "DIR", sources, "DIR").Replace(text)
	for _, s := range goldenSteady {
		text = s.pattern.ReplaceAllString(text, s.by)
	}
	if fixed {
		return text
	}
	var known []string
	return goldenID.ReplaceAllStringFunc(text, func(id string) string {
		mark := id[:max(strings.LastIndexAny(id, "-:")+1, 0)]
		id = id[len(mark):][:12]
		i := slices.Index(known, id)
		if i < 0 {
			i = len(known)
			known = append(known, id)
		}
		return fmt.Sprintf("%sID%d", mark, i+1)
	})
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	command := ""
	for i := range max(len(g), len(w)) {
		switch {
		case i >= len(g):
			return fmt.Sprintf("below %q lacks\n%s", command, strings.Join(w[i:], "\n"))
		case i >= len(w):
			return fmt.Sprintf("below %q has besides\n%s", command, strings.Join(g[i:], "\n"))
		case g[i] != w[i]:
			return fmt.Sprintf("below %q is\n%s\nand should be\n%s", command, g[i], w[i])
		}
		if strings.HasPrefix(g[i], "$ ") {
			command = g[i]
		}
	}
	return "is the same"
}

func canMount() bool {
	_, err := os.Stat("/dev/fuse")
	return err == nil && os.Geteuid() == 0
}

// goldenSources makes the directory with what the cases read, in src/, and the program, as bin/cbt.
func goldenSources(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for from, to := range map[string]string{
		"vmstate/snapshots.qcow2": "vm.qcow2", "vmstate/plain.state": "plain.state", "vmstate/q35.state": "q35.state",
		"lvm/mixed-0.img": "0.img", "lvm/mixed-1.img": "1.img", "lvm/mixed-2.img": "2.img",
		"chain-top.qcow2": "", "chain-mid.qcow2": "", "chain-base.raw": "", "datafile.qcow2": "", "datafile.data": "", "v3.qcow2": "", "v2.qcow2": "",
		"extl2.qcow2": "", "zstd.qcow2": "", "names.qcow2": "", "bitmaps.qcow2": "", "sizes.qcow2": "", "corrupt.qcow2": "", "dirty.qcow2": "", "luks.qcow2": "", "unknown-bit.qcow2": "",
	} {
		if to == "" {
			to = from
		}
		if err := unpackSample(filepath.Join(sample.Dir(t), from+".gz"), at("src/"+to)); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at("bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	// TestMain makes the test binary cbt, by this name.
	if err := os.Symlink(self, at("bin/cbt")); err != nil {
		t.Fatal(err)
	}
	sh := exec.Command("sh", "-ec", goldenSetup)
	sh.Dir = at("src")
	deltas, err := filepath.Abs(filepath.Join(goldenDir, "deltas"))
	if err != nil {
		t.Fatal(err)
	}
	sh.Env = append(os.Environ(), "PATH="+at("bin")+":"+os.Getenv("PATH"), "TZ=UTC", "CBT_TEST_INSTANT=mtime", "deltas="+deltas)
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// goldenSetup makes raw disks, and directories of the deltas in golden/deltas. These were written once, by the same
// program as the golden files, and stay as they are: mon, tue and tip are a chain of v3.qcow2, full and tue2 other deltas
// of its tuesday, alpha-* the same chain with a name, beta-* is of extl2.qcow2, ram-* of vm.qcow2.
const goldenSetup = `
cbt cat vm.qcow2@monday >disk.raw
cbt cat v3.qcow2@monday >other.raw
touch -d 2024-01-02T03:04:05Z *.raw *.qcow2 *.img *.data *.state
mkdir ram chain routes broken damaged orphan two empty
cp "$deltas"/ram-mon.cbt ram/mon.cbt
cp "$deltas"/ram-tue.cbt ram/tue.cbt
cp "$deltas"/mon.cbt "$deltas"/tue.cbt "$deltas"/tip.cbt chain
cp chain/* "$deltas"/tue2.cbt routes
cp routes/* broken
cp "$deltas"/full.cbt routes
printf damage | dd of=broken/tue2.cbt bs=1 seek=700 conv=notrunc status=none
cp chain/mon.cbt chain/tue.cbt damaged
printf damage | dd of=damaged/mon.cbt bs=1 seek=3000 conv=notrunc status=none
cp chain/tue.cbt chain/tip.cbt orphan
head -c 2000 chain/mon.cbt >cut.cbt
cp "$deltas"/alpha-*.cbt "$deltas"/beta-*.cbt two
`
