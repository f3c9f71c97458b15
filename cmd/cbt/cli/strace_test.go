package cli

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// openCall is a line of strace -f -y: the directory descriptor, the name, the
// flags and what came of it.
var openCall = regexp.MustCompile(`(?:openat2?\((?:AT_FDCWD(?:<([^>]*)>)?|[0-9]+<([^>]*)>), |open\()"((?:[^"\\]|\\.)*)"(?:\.\.\.)?, \{?(?:flags=)?([A-Z_|0-9]+)`)

// ours are the files that a Go program opens for itself, and those that say who
// uses an image.
var ours = regexp.MustCompile(`^(/sys/|/dev/(null|loop[0-9]+)$|/proc(/(self|stat|cpuinfo|sys|meminfo|swaps|[0-9]+)/?|$)|/etc/(localtime|ld\.so)|/lib|/usr/lib)`)

// scriptTraced runs a command under strace, which must end with the given exit
// code, and fails if it opened a file outside the given directories (split at
// colons), be it only to look at it, or any file for writing. Descriptors that
// /proc/self/fd leads to were opened by a name before.
func scriptTraced(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: traced N DIR[:DIR...] CMD...")
	}
	trace := ts.MkAbs("trace")
	scriptExits(ts, false, append([]string{args[0],
		"strace", "-f", "-y", "-s", "4096", "-e", "trace=open,openat,openat2", "-o", trace}, args[2:]...))
	f, err := os.Open(trace)
	ts.Check(err)
	defer f.Close()
	opened := 0
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if !strings.Contains(line, "open") {
			continue
		}
		m := openCall.FindStringSubmatch(line)
		if m == nil {
			if strings.Contains(line, "resumed>") || strings.Contains(line, "+++") || strings.Contains(line, "---") {
				continue
			}
			ts.Fatalf("cannot read the line %s", line)
		}
		name := m[3]
		if ours.MatchString(name) {
			continue
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(m[1]+m[2], name)
		}
		if strings.Contains(m[4], "O_WRONLY") || strings.Contains(m[4], "O_RDWR") || strings.Contains(m[4], "O_CREAT") {
			ts.Fatalf("opened for writing: %s", line)
		}
		opened++
		inside := false
		for _, dir := range filepath.SplitList(args[1]) {
			inside = inside || within(ts.MkAbs(dir), name)
		}
		if !inside {
			ts.Fatalf("opened outside %s: %s", args[1], line)
		}
	}
	ts.Check(lines.Err())
	if opened == 0 {
		ts.Fatalf("strace saw nothing")
	}
}

// scriptOrdered demands lines of a file that match these expressions, one after
// another.
func scriptOrdered(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: ordered FILE RE...")
	}
	lines := strings.Split(ts.ReadFile(args[0]), "\n")
	for _, want := range args[1:] {
		re := regexp.MustCompile(want)
		for len(lines) > 0 && !re.MatchString(lines[0]) {
			lines = lines[1:]
		}
		if len(lines) == 0 {
			ts.Fatalf("%s: no line matches %s behind those before", args[0], want)
		}
		lines = lines[1:]
	}
}
