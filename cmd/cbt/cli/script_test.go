package cli

import (
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"cbt/internal/sample"
	"cbt/internal/testtool"
)

// The stories in testdata/script run cbt as users do. Besides testscript's
// commands they have
//
//	exits N CMD...   run CMD, which must end with exit code N
//	sample NAME...   unpack images of the testdata directory of the project
//	freeze FILE...   note content and times of files, which must be the same
//	                 at every later "frozen"
//	patch FILE OLD NEW  replace bytes by others of the same number; \xNN is one
//	ordered FILE RE...  the file has lines that match each RE, in this order
//	traced N DIR CMD...  run CMD under strace: exit code N, and no file opened
//	                 outside DIR
//
// With CBT_TEST_INSTANT=mtime raw files are of the time of their mtime, which touch
// can put into the past; without, as for everybody, of their ctime.
//
// There are the conditions [tool:NAME], which is an error where tools are required, and
// [fuse], that this process can mount.
func TestScripts(t *testing.T) {
	dir := sample.Dir(t)
	// Under nohup what the scripts start would ignore SIGHUP too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	testscript.Run(t, testscript.Params{
		Dir:      "testdata/script",
		Deadline: time.Now().Add(30 * time.Minute),
		Setup: func(env *testscript.Env) error {
			raceOptions(env)
			env.Values[frozenKey{}] = map[string]string{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   scriptExits,
			"freeze":  scriptFreeze,
			"frozen":  scriptFrozen,
			"patch":   scriptPatch,
			"traced":  scriptTraced,
			"ordered": scriptOrdered,
			"sample": func(ts *testscript.TestScript, _ bool, args []string) {
				for _, name := range args {
					ts.Check(unpackSample(filepath.Join(dir, name+".gz"), ts.MkAbs(name)))
				}
			},
		},
		Condition: func(cond string) (bool, error) {
			if cond == "fuse" {
				_, err := os.Stat("/dev/fuse")
				return err == nil && os.Geteuid() == 0, nil
			}
			name, ok := strings.CutPrefix(cond, "tool:")
			if !ok {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			_, found := testtool.Find(name)
			if !found && os.Getenv(testtool.RequireEnv) == "1" {
				return false, fmt.Errorf("%s is not installed", name)
			}
			return found, nil
		},
	})
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N CMD...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		got = ee.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

type frozenKey struct{}

func fingerprint(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x %v %v", h.Sum(nil), info.ModTime(), info.Mode()), nil
}

func scriptFreeze(ts *testscript.TestScript, _ bool, args []string) {
	files := ts.Value(frozenKey{}).(map[string]string)
	for _, name := range args {
		print, err := fingerprint(ts.MkAbs(name))
		ts.Check(err)
		files[ts.MkAbs(name)] = print
	}
}

func scriptFrozen(ts *testscript.TestScript, _ bool, _ []string) {
	files := ts.Value(frozenKey{}).(map[string]string)
	if len(files) == 0 {
		ts.Fatalf("nothing was frozen")
	}
	for path, want := range files {
		got, err := fingerprint(path)
		ts.Check(err)
		if got != want {
			ts.Fatalf("%s: is %s, was %s", path, got, want)
		}
	}
}

func scriptPatch(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: patch FILE OLD NEW")
	}
	var text [2]string
	for i := range text {
		var err error
		text[i], err = strconv.Unquote("`" + args[i+1] + "`")
		if strings.Contains(args[i+1], `\x`) {
			text[i], err = strconv.Unquote(`"` + args[i+1] + `"`)
		}
		ts.Check(err)
	}
	if len(text[0]) != len(text[1]) {
		ts.Fatalf("%q and %q are not of one length", text[0], text[1])
	}
	path := ts.MkAbs(args[0])
	content, err := os.ReadFile(path)
	ts.Check(err)
	patched := strings.ReplaceAll(string(content), text[0], text[1])
	if patched == string(content) {
		ts.Fatalf("%s does not hold %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(path, []byte(patched), 0o644))
}

func unpackSample(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	out, err := create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, z); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

func create(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, err
	}
	return os.Create(path)
}
