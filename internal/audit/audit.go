// Package audit keeps the record of a run: what it read and what it wrote. All files
// that cbt reads, makes and removes go through a *Recorder, which without a record
// to keep is nil and does nothing more.
package audit

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/outfile"
	"cbt/internal/report"
	"cbt/internal/text"
)

// Recorder is the record that --audit keeps of a run: what was started, by whom,
// what it read and wrote. All files are opened and made through it, so that a
// command cannot leave one out; without --audit it is nil and only opens and
// makes them. Its methods may be called at the same time from several
// goroutines.
//
// Lines are written as things happen: what a killed run read is there, though
// its last line is missing.
type Recorder struct {
	log           *outfile.Log
	Path          string
	file          os.FileInfo
	run           string
	ctx           context.Context
	report        report.Reporter
	hash          string // --hash
	before, after bool
	stdout        Stream
	stdin         *hashedReader

	mu      sync.Mutex
	lines   int
	ended   bool
	err     error // the first that no command was told of
	inputs  map[inputKey]*input
	order   []*input
	sums    map[fileVersion]string // SHA-256 before
	live    map[infile.ID]bool     // machines may write to these; false: not to these
	targets []*Target              // being written
	mine    map[string]bool        // real paths of what this run made or removed
}

// Prefix begins every line of an audit file, and no other file: what does
// not begin like this is never appended to.
const Prefix = `{"cbt-audit":1,`

// head is what all lines begin with.
type head struct {
	Version int       `json:"cbt-audit"`
	Event   string    `json:"event"`
	Run     string    `json:"run"`
	Time    time.Time `json:"time"` // UTC
}

type start struct {
	head
	Program   string     `json:"version"`
	Arguments []byteText `json:"arguments"`
	Directory byteText   `json:"directory"`
	User      byteText   `json:"user"`
	UID       string     `json:"uid"`
	Host      byteText   `json:"host"`
	PID       int        `json:"pid"`
}

type end struct {
	head
	Exit   int    `json:"exit"`
	Error  string `json:"error,omitempty"`
	Signal string `json:"signal,omitempty"`
	Hash   string `json:"hash,omitempty"` // --hash
	Lines  int    `json:"lines"`          // of this run, this one included
}

// byteText is a string that is kept byte for byte: as {"hex": "..."} where it is
// no valid UTF-8.
type byteText string

func (t byteText) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return json.Marshal(string(t))
	}
	return json.Marshal(map[string]string{"hex": hex.EncodeToString([]byte(t))})
}

// Run says what is recorded of a run.
type Run struct {
	Path      string // of the record, which is appended to
	Version   string // of the program
	Arguments []string
	Report    report.Reporter
}

// New begins the record of a run. It fails if nothing can be written, before
// anything else is done; the recorder that comes with some errors takes the end of
// the run all the same.
func New(ctx context.Context, run Run) (*Recorder, error) {
	log, err := outfile.OpenLog(run.Path, Prefix)
	if errors.Is(err, outfile.ErrNotLog) {
		return nil, fail.Usage("--audit %s: holds something else than records of cbt, to which nothing is added", text.Printable(run.Path))
	}
	if err != nil {
		return nil, fail.Exit(fail.Failed, "--audit: %w", err)
	}
	var id [8]byte
	rand.Read(id[:])
	u := &Recorder{
		log: log, Path: run.Path, run: hex.EncodeToString(id[:]), ctx: ctx, report: run.Report,
		inputs: map[inputKey]*input{}, sums: map[fileVersion]string{}, live: map[infile.ID]bool{}, mine: map[string]bool{},
	}
	remember(u)
	if u.file, err = log.Stat(); err != nil {
		return u, fail.Exit(fail.Failed, "--audit: %w", err)
	}
	line := start{
		head: u.head("start"), Program: run.Version, PID: os.Getpid(), UID: strconv.Itoa(os.Getuid()), Arguments: []byteText{},
	}
	for _, arg := range run.Arguments {
		line.Arguments = append(line.Arguments, byteText(arg))
	}
	// What cannot be found out is empty.
	dir, _ := os.Getwd()
	host, _ := os.Hostname()
	line.Directory, line.Host = byteText(dir), byteText(host)
	if who, err := user.Current(); err == nil {
		line.User, line.UID = byteText(who.Username), who.Uid
	}
	if err := u.append(line); err != nil {
		return u, fail.Exit(fail.Failed, "--audit: %w", err)
	}
	return u, nil
}

// Stream is what is written to standard output, hashed.
type Stream interface {
	// Written returns the bytes written so far, their SHA-256 in hex, and whether
	// that is all that was to be written.
	Written() (n int64, sum string, whole bool)
}

// Output makes the record tell what goes to standard output, which is w below.
func (u *Recorder) Output(s Stream, w io.Writer) error {
	u.stdout = s
	if f, ok := w.(*os.File); ok {
		if st, err := f.Stat(); err == nil && os.SameFile(st, u.file) {
			return u.refuse("stdout")
		}
	}
	return nil
}

// input makes the record tell what is read from standard input, and returns the
// reader to read it with.
func (u *Recorder) StandardInput(r io.Reader) io.Reader {
	u.stdin = &hashedReader{r: r, sum: newSum()}
	return u.stdin
}

// SetHash says when all inputs are hashed: "before", "after" or "both".
func (u *Recorder) SetHash(when string) error {
	switch when {
	case "before", "after", "both":
	default:
		return fail.Usage("--hash %s: is before, after or both", text.Printable(when))
	}
	u.hash = when
	u.before, u.after = when != "after", when != "before"
	return nil
}

func (u *Recorder) head(event string) head {
	return head{1, event, u.run, time.Now().UTC()}
}

// append writes a line.
func (u *Recorder) append(line any) error {
	// Times of the last line and of all before it are in order.
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.appendLocked(line)
}

func (u *Recorder) appendLocked(line any) error {
	if u.ended {
		return errors.New("the record of the run is closed")
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(line); err != nil {
		return err
	}
	if err := u.log.Append([]byte(text.EscapeJSON(strings.TrimSuffix(b.String(), "\n")))); err != nil {
		return u.note(fail.Exit(fail.Failed, "--audit: %w", err))
	}
	u.lines++
	return nil
}

// note keeps an error that whoever opens a file may not hand on; the run fails
// by it. mu is held.
func (u *Recorder) note(err error) error {
	if u.err == nil {
		u.err = err
	}
	return err
}

// refuse says that the record itself would be read or written.
func (u *Recorder) refuse(path string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.note(fail.Usage("%s: is the record that --audit keeps", text.Printable(path)))
}

// Finish looks at all inputs again. err is what the command ended with; so is
// the result, unless the record itself failed or found something more.
func (u *Recorder) Finish(err error) error {
	if u == nil {
		return err
	}
	found := u.recheck()
	u.mu.Lock()
	defer u.mu.Unlock()
	return firstError(u.err, err, found)
}

// firstError is the first error that there is.
func firstError(list ...error) error {
	for _, err := range list {
		if err != nil {
			return err
		}
	}
	return nil
}

// End writes the last lines. A run whose record has no end was killed.
func (u *Recorder) End(code int, failed error) error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return nil
	}
	forget(u)
	for _, t := range u.targets {
		u.appendLocked(u.targetLine(t, false)) // kept by note
	}
	u.endStreams(code == fail.Done || code == fail.FindingsCode)
	line := end{Exit: code, Hash: u.hash, Lines: u.lines + 1}
	if failed != nil {
		line.Error = failed.Error()
	}
	var sig interface{ Signal() os.Signal }
	if errors.As(context.Cause(u.ctx), &sig) {
		line.Signal = sig.Signal().String()
	}
	line.head = u.head("end")
	before := u.err
	err := u.appendLocked(line)
	u.ended = true
	if err = errors.Join(err, u.log.Close()); err == nil && failed == nil {
		err = before
	}
	return err
}

// Running are the records of this process that have no end yet.
var Running = struct {
	sync.Mutex
	List map[*Recorder]bool
}{List: map[*Recorder]bool{}}

func remember(u *Recorder) {
	Running.Lock()
	defer Running.Unlock()
	Running.List[u] = true
}

func forget(u *Recorder) {
	Running.Lock()
	defer Running.Unlock()
	delete(Running.List, u)
}

// grace is how long the last lines may take when the process is ended.
const grace = time.Second

// EndAll ends the records of runs that a signal cuts short.
func EndAll(code int, why error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		Running.Lock()
		var list []*Recorder
		for u := range Running.List {
			list = append(list, u)
		}
		Running.Unlock()
		for _, u := range list {
			_ = u.End(code, why) // nobody is left to be told
		}
	}()
	select {
	case <-done:
	case <-time.After(grace):
	}
}
