package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cbt/internal/audit"
	"cbt/internal/sample"
	"cbt/internal/testtool"
)

// No command writes to what it reads, or opens it for writing, and --audit
// records all of what it opens and makes.
func TestEveryCommand(t *testing.T) {
	names := everyName()
	for name := range everyCommand {
		if !slices.Contains(names, name) {
			t.Errorf("everyCommand has %q, which is no command", name)
		}
	}
	e := newEvery(t)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			script, ok := everyCommand[name]
			if !ok {
				t.Fatalf("everyCommand in every_table_test.go has no script for `cbt %s`", name)
			}
			e.run(t, name, script)
		})
	}
	e.unread(t)
	for path, want := range e.prints {
		if got, err := fingerprint(path); got != want {
			t.Errorf("%s: is %s (%v), was %s", path, got, err, want)
		}
	}
}

// every is a directory with sources.
type every struct {
	dir    string
	prints map[string]string         // fingerprints of the sources
	stats  map[string]syscall.Stat_t // as they were before the first command
}

// everySources makes a directory with the sources that every_table_test.go lists, and
// the program as bin/real.
func everySources(t *testing.T) (dir string) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, dir := range []string{"bin", "src/deltas", "in"} {
		if err := os.MkdirAll(at(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for to, from := range map[string]string{
		"disk.qcow2": "vmstate/snapshots.qcow2", "plain.state": "vmstate/plain.state", "0.img": "lvm/mixed-0.img", "1.img": "lvm/mixed-1.img", "2.img": "lvm/mixed-2.img",
		"chain-top.qcow2": "", "chain-mid.qcow2": "", "chain-base.raw": "", "datafile.qcow2": "", "datafile.data": "",
	} {
		if from == "" {
			from = to
		}
		if err := unpackSample(filepath.Join(sample.Dir(t), from+".gz"), at("src/"+to)); err != nil {
			t.Fatal(err)
		}
	}
	testtool.Run(t, "go", "build", "-o", at("bin/real"), "cbt/cmd/cbt")
	sh := exec.Command("sh", "-ec", `
		real=$PWD/bin/real; cd src
		$real cat disk.qcow2@monday >disk.raw
		$real -q diff --full disk.qcow2@monday -o deltas/mon.cbt
		$real -q diff disk.qcow2@monday disk.qcow2@tuesday -o deltas/tue.cbt
		cp deltas/*.cbt ../in`)
	sh.Dir = dir
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

func newEvery(t *testing.T) *every {
	testtool.Need(t, "strace")
	e := &every{dir: everySources(t), prints: map[string]string{}, stats: map[string]syscall.Stat_t{}}
	at := func(name string) string { return filepath.Join(e.dir, name) }
	traced := `#!/bin/sh
exec strace -f -y -s 4096 -e trace=` + strings.Join(append(changing, "open", "openat", "openat2"), ",") + ` -o ` + e.dir + `/traces/$$ ` + at("bin/real") + ` --hash=both "$@"
`
	if err := os.WriteFile(at("bin/cbt"), []byte(traced), 0o755); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(at("src"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if e.prints[path], err = fingerprint(path); err != nil {
			return err
		}
		// A read would now be seen, also where only the first one is.
		long := time.Now().Add(-72 * time.Hour)
		info, err := d.Info()
		if err == nil {
			err = os.Chtimes(path, long, info.ModTime())
		}
		var st syscall.Stat_t
		if err == nil {
			err = syscall.Stat(path, &st)
		}
		e.stats[path] = st
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// unread demands that nothing about the sources changed. Content is for the end:
// looking at it changes when they were read.
func (e *every) unread(t *testing.T) {
	t.Helper()
	for path, want := range e.stats {
		var got syscall.Stat_t
		if err := syscall.Stat(path, &got); err != nil || got != want {
			t.Errorf("%s: is %+v (%v), was %+v", path, got, err, want)
		}
	}
}

func (e *every) run(t *testing.T, name, script string) {
	at := func(name string) string { return filepath.Join(e.dir, name) }
	for _, dir := range []string{"out", "tmp", "lock", "traces"} {
		if err := os.RemoveAll(at(dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(at(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	os.Remove(at("audit"))
	sh := exec.Command("sh", "-ec", script)
	sh.Dir = e.dir
	sh.Env = append(os.Environ(), "PATH="+at("bin")+":"+os.Getenv("PATH"), "CBT_AUDIT="+at("audit"), "TMPDIR="+at("tmp"), "CBT_LOCK_DIR="+at("lock"),
		"pv=--pv src/0.img --pv src/1.img --pv src/2.img")
	if out, err := sh.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	e.unread(t)
	runs := readAudit(t, at("audit"))
	traces, _ := os.ReadDir(at("traces"))
	if len(traces) == 0 || len(traces) != len(runs) {
		t.Errorf("%d runs, of which %d are recorded", len(traces), len(runs))
	}
	words, used := strings.Fields(name), false
	for _, f := range traces {
		pid, read := e.readTrace(t, filepath.Join(at("traces"), f.Name()))
		run := runs[pid]
		if run == nil {
			t.Errorf("run %s is not recorded", pid)
			continue
		}
		args := run.arguments()[1:] // without --hash
		used = used || len(args) >= len(words) && slices.Equal(args[:len(words)], words)
		run.check(t, e, read)
	}
	if !used {
		t.Errorf("the script does not run `cbt %s`", name)
	}
	checkOutputs(t, runs, at("out"))
}

// changing are the system calls that change a file, or what has its name.
var changing = strings.Fields(`creat write pwrite64 writev pwritev pwritev2 sendfile splice copy_file_range truncate ftruncate
	fallocate ioctl rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat rmdir mkdir mkdirat mknod mknodat chmod fchmod
	fchmodat chown fchown lchown fchownat utime utimes futimesat utimensat setxattr lsetxattr fsetxattr removexattr
	lremovexattr fremovexattr mount umount2`)

var (
	callName  = regexp.MustCompile(`^(\d+) +([a-z0-9_]+)\(`)
	quoted    = regexp.MustCompile(`"((?:[^"\\]|\\.)*)"`)
	annotated = regexp.MustCompile(`[0-9A-Z_]<(/[^>]*)>`)
	opened    = regexp.MustCompile(`= \d+<(/[^>]*)>$`)
)

// readTrace demands that a run changed nothing but what is in its own
// directories, and returns its process and what it opened for reading.
func (e *every) readTrace(t *testing.T, path string) (pid string, read []string) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 8<<20)
	cut := map[string]string{} // calls of threads that others came between
	for lines.Scan() {
		line := lines.Text()
		thread, rest, _ := strings.Cut(line, " ")
		if pid == "" {
			pid = thread
		}
		if head, ok := strings.CutSuffix(line, " <unfinished ...>"); ok {
			cut[thread] = head
			continue
		}
		if i := strings.Index(line, " resumed>"); i >= 0 && strings.HasPrefix(strings.TrimSpace(rest), "<... ") {
			line = cut[thread] + line[i+len(" resumed>"):]
		}
		m := callName.FindStringSubmatch(line)
		if m == nil {
			continue // signals and ends
		}
		if !strings.HasPrefix(m[2], "open") {
			e.judge(t, m[2], line)
			continue
		}
		call := openCall.FindStringSubmatch(line)
		if call == nil {
			t.Errorf("cannot read the line %s", line)
			continue
		}
		name := call[3]
		if !filepath.IsAbs(name) {
			name = filepath.Join(call[1]+call[2], name)
		}
		to := opened.FindStringSubmatch(line)
		if regexp.MustCompile(`O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND`).MatchString(call[4]) {
			if to != nil {
				name = to[1] // of /proc/self/fd/N
			}
			if !e.mayWrite(name) && name != os.DevNull && name != "/dev/mapper/control" && name != "/dev/fuse" && !strings.HasSuffix(name, "/read_ahead_kb") {
				t.Errorf("opened for writing: %s", line)
			}
			continue
		}
		if to != nil && within(e.dir, to[1]) && !strings.Contains(call[4], "O_PATH") {
			read = append(read, to[1])
		}
	}
	if lines.Err() != nil || pid == "" {
		t.Errorf("%s: %v", path, lines.Err())
	}
	return pid, read
}

// mayWrite is true of what a run may make or change.
func (e *every) mayWrite(path string) bool {
	for _, dir := range []string{"out", "tmp", "lock"} {
		if path == filepath.Join(e.dir, dir) || within(filepath.Join(e.dir, dir), path) {
			return true
		}
	}
	return path == filepath.Join(e.dir, "audit")
}

// judge looks at a call that changes something.
func (e *every) judge(t *testing.T, call, line string) {
	if call == "mount" && strings.Contains(line, `"fuse.cbt"`) {
		return // what it calls its source is a text
	}
	files := []string{}
	for _, m := range annotated.FindAllStringSubmatch(line, -1) {
		files = append(files, m[1])
	}
	if !strings.Contains(call, "write") && call != "ioctl" {
		for _, m := range quoted.FindAllStringSubmatch(line, -1) {
			name := m[1]
			if !filepath.IsAbs(name) {
				name = filepath.Join(e.dir, name)
			}
			files = append(files, name)
		}
	}
	for _, name := range files {
		if within(filepath.Join(e.dir, "src"), name) {
			t.Errorf("changes a source: %s", line)
		}
	}
}

// auditRun is what the record says of a run.
type auditRun struct {
	lines []map[string]any
}

// readAudit reads a record: the runs by their processes.
func readAudit(t *testing.T, path string) map[string]*auditRun {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	runs, byID := map[string]*auditRun{}, map[any]*auditRun{}
	for _, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		var l map[string]any
		d := json.NewDecoder(strings.NewReader(line))
		d.UseNumber()
		if err := d.Decode(&l); err != nil || !strings.HasPrefix(line, audit.Prefix) {
			t.Fatalf("%q: %v", line, err)
		}
		if _, err := time.Parse(time.RFC3339Nano, l["time"].(string)); err != nil || !strings.HasSuffix(l["time"].(string), "Z") {
			t.Errorf("%v: %v", l["time"], err)
		}
		run := byID[l["run"]]
		if run == nil {
			run = &auditRun{}
			byID[l["run"]] = run
			runs[fmt.Sprint(l["pid"])] = run
		}
		run.lines = append(run.lines, l)
	}
	return runs
}

func (r *auditRun) arguments() (args []string) {
	for _, a := range r.lines[0]["arguments"].([]any) {
		args = append(args, a.(string))
	}
	return args
}
