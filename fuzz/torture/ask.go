package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"cbt/fuzz/tool"
)

// Exit codes of cbt.
const (
	done      = 0
	usage     = 2
	findings  = 3
	wrongBase = 4
	busy      = 5
)

// cbt runs cbt and demands an exit code.
func (h *history) cbt(want int, args ...string) (tool.Result, bool) {
	return h.cbtPipe(want, nil, nil, args...)
}

func (h *history) cbtPipe(want int, in io.Reader, out io.Writer, args ...string) (tool.Result, bool) {
	env := []string{}
	if h.crng.IntN(3) == 0 {
		env = append(env, "GOMAXPROCS="+pick(h.crng, "1", "2", "5", "16"))
	}
	r := tool.Cmd{Dir: h.dir, Env: env, Stdin: in, Stdout: out}.Run(h.cfg.cbt, args...)
	h.note(r, "cbt", args)
	if r.Exit != want {
		h.problem("exit %d, want %d: cbt %s: %s", r.Exit, want, strings.Join(args, " "), r.Message())
		return r, false
	}
	if r.Failed() && len(bytes.TrimSpace(r.Stderr)) == 0 {
		h.problem("exit %d without a word: cbt %s", r.Exit, strings.Join(args, " "))
	}
	return r, true
}

// ref is how cbt is told of a state: an argument, and flags that go with it.
// which is "old", "new" or "" as in --old-snapshot, --new-snapshot, --snapshot.
func (h *history) ref(s *state, which string) (arg string, flags []string) {
	arg = s.f.name
	if h.crng.IntN(4) == 0 {
		arg = h.path(arg)
	}
	if s.snap == "" {
		// A raw file has a point of its own, an active qcow2 state only by decree.
		if !s.f.opts.raw && s.frozen(h) {
			flags = append(flags, "--frozen")
		}
		if s.f.opts.raw {
			flags = append(flags, h.rawFlags(which)...)
		}
		return arg, flags
	}
	if strings.Contains(s.snap, "@") || h.crng.IntN(6) == 0 {
		flag := "--snapshot"
		if which != "" {
			flag = "--" + which + "-snapshot"
		}
		return arg, append(flags, flag+"="+s.snap)
	}
	return arg + "@" + s.snap, flags
}

// rawTarget says that a target is raw, whatever the guest put at its start.
func (h *history) rawTarget() string { return "--target-format=raw" }

// frozen is true for active states of files under others: nobody writes there.
func (s *state) frozen(h *history) bool { return s.snap == "" && s.f != h.top() }

// sameBytes compares a file with a ground truth, byte for byte.
func (h *history) sameBytes(got, truth, what string) bool {
	h.comparisons++
	if err := compareFiles(got, truth); err != nil {
		h.problem("%s: %v (%s against %s)", what, err, got, truth)
		return false
	}
	return true
}

func compareFiles(got, want string) error {
	a, err := os.Open(got)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(want)
	if err != nil {
		return err
	}
	defer b.Close()
	p, q := make([]byte, 1<<18), make([]byte, 1<<18)
	for off := int64(0); ; {
		n, errA := io.ReadFull(a, p)
		m, errB := io.ReadFull(b, q)
		if k := min(n, m); !bytes.Equal(p[:k], q[:k]) {
			i := 0
			for p[i] == q[i] {
				i++
			}
			return fmt.Errorf("differs at byte %d: %#x instead of %#x", off+int64(i), p[i], q[i])
		}
		if n != m {
			return fmt.Errorf("has another size: one ends at %d, the other goes on", off+int64(min(n, m)))
		}
		off += int64(n)
		if errA != nil || errB != nil {
			if isEnd(errA) && isEnd(errB) {
				return nil
			}
			return fmt.Errorf("reading at %d: %v, %v", off, errA, errB)
		}
	}
}

func isEnd(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }
