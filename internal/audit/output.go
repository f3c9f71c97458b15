package audit

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"cbt/internal/infile"
	"cbt/internal/outfile"
)

// output is a line about something that was written.
type output struct {
	head
	Path     byteText `json:"path"`
	Real     byteText `json:"real,omitempty"`
	Kind     string   `json:"kind"`             // file, state record, in place, stdout, removed
	Device   string   `json:"device,omitempty"` // major:minor, where it lies or of the device itself
	Inode    uint64   `json:"inode,omitempty"`
	Size     int64    `json:"size"`
	SHA256   string   `json:"sha256,omitempty"` // of all of it
	Written  *int64   `json:"written,omitempty"`
	Zeroed   *int64   `json:"zeroed,omitempty"`
	From     string   `json:"from,omitempty"` // points
	To       string   `json:"to,omitempty"`
	Deltas   []string `json:"deltas,omitempty"` // IDs
	Complete bool     `json:"complete"`
}

// OutFile is a new file, of which there is a line once it has its name.
type OutFile struct {
	*outfile.File
	Audit *Recorder
	path  string
	kind  string
}

// Create begins a file as outfile.Create does.
func (u *Recorder) Create(path string, replace bool) (*OutFile, error) {
	if err := u.RefuseSelf(path); err != nil {
		return nil, err
	}
	f, err := outfile.Create(path, replace)
	if err != nil {
		return nil, err
	}
	return &OutFile{f, u, path, "file"}, nil
}

// Probe says why create would fail, without making anything.
func (u *Recorder) Probe(path string, replace bool) error {
	if err := u.RefuseSelf(path); err != nil {
		return err
	}
	return outfile.Probe(path, replace)
}

// Commit gives the file its name, and then records it.
func (f *OutFile) Commit() error {
	if err := f.File.Commit(); err != nil {
		return err
	}
	return f.Audit.Wrote(f.kind, f.path)
}

// CommitTogether is Commit of many files, those of a group before those of the
// next.
func CommitTogether(groups ...[]*OutFile) error {
	files := make([][]*outfile.File, len(groups))
	for i, group := range groups {
		for _, f := range group {
			files[i] = append(files[i], f.File)
		}
	}
	if err := outfile.CommitTogether(files...); err != nil {
		return err
	}
	for _, group := range groups {
		for _, f := range group {
			if err := f.Audit.Wrote(f.kind, f.path); err != nil {
				return err
			}
		}
	}
	return nil
}

// CreateIn begins a file in dir as outfile.CreateIn does.
func (u *Recorder) CreateIn(dir, prefix, suffix string) (*OutFile, error) {
	f, err := outfile.CreateIn(dir, prefix, suffix)
	if err != nil {
		return nil, err
	}
	return &OutFile{f, u, dir, "file"}, nil
}

// CommitAs gives a file of createIn its name, and then records it.
func (f *OutFile) CommitAs(name string) error {
	if err := f.File.CommitAs(name); err != nil {
		return err
	}
	return f.Audit.Wrote(f.kind, filepath.Join(f.path, name))
}

// WriteFile puts data under path as outfile.WriteFile does.
func (u *Recorder) WriteFile(kind, path string, data []byte) error {
	f, err := u.Create(path, true)
	if err != nil {
		return err
	}
	defer f.Abort()
	f.kind = kind
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// Wrote records a file that has its name and its content, which is read again.
func (u *Recorder) Wrote(kind, path string) error {
	if u == nil {
		return nil
	}
	f, err := infile.Open(path, nil)
	if err != nil {
		return fmt.Errorf("--audit: reading what was written: %w", err)
	}
	defer f.Close()
	line := output{
		Path: byteText(path), Real: byteText(f.Real), Kind: kind, Device: infile.DeviceNumber(f.Info.Dev), Inode: f.Info.Ino, Size: f.Info.Size, Complete: true,
	}
	if line.SHA256, err = u.hashOf(f.File, f.Info.Size); err != nil {
		return fmt.Errorf("%s: hashing it for --audit: %w", path, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mine[f.Real] = true
	line.head = u.head("output")
	return u.appendLocked(line)
}

// Again opens a file that this run wrote, and of which there is a line.
func (u *Recorder) Again(path string) (*infile.Input, error) { return infile.Open(path, nil) }

// Remove removes a file, and records that.
func (u *Recorder) Remove(path string) error {
	if u == nil {
		return os.Remove(path)
	}
	if err := u.RefuseSelf(path); err != nil {
		return err
	}
	// A link is removed itself, so only its directory is resolved.
	real, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err == nil {
		real, err = filepath.Abs(filepath.Join(real, filepath.Base(path)))
	}
	if err != nil {
		return err
	}
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mine[real] = true
	return u.appendLocked(output{head: u.head("output"), Path: byteText(path), Real: byteText(real), Kind: "removed", Size: st.Size(), Complete: true})
}

// RefuseSelf refuses to write to the record.
func (u *Recorder) RefuseSelf(path string) error {
	if u == nil {
		return nil
	}
	if st, err := os.Stat(path); err == nil && os.SameFile(st, u.file) {
		return u.refuse(path)
	}
	return nil
}

// Target is a target that is written in place.
type Target struct {
	Path    string
	Stat    infile.Stat
	Size    func() int64
	Written func() (written, zeroed int64)
}

// Begin notes that a target is being written in place: if the run ends before
// finishTarget, the record says that it is incomplete.
func (u *Recorder) Begin(t *Target) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.targets = append(u.targets, t)
}

// FinishTarget records a target that was written in place, from a point to
// another by deltas of these IDs; with --hash after all of its bytes, read again.
func (u *Recorder) FinishTarget(t *Target, from, to string, deltas []string) (err error) {
	if u == nil {
		return nil
	}
	line := u.targetLine(t, true)
	line.From, line.To, line.Deltas = from, to, deltas
	if u.after {
		f, err := infile.Open(t.Path, nil)
		if err == nil {
			defer f.Close()
			line.Size = f.Info.Size
			line.SHA256, err = u.hashOf(f.File, f.Info.Size)
		}
		if err != nil {
			return fmt.Errorf("%s: hashing it for --audit: %w", t.Path, err)
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range u.targets {
		if u.targets[i] == t {
			u.targets = append(u.targets[:i:i], u.targets[i+1:]...)
			break
		}
	}
	line.head = u.head("output")
	return u.appendLocked(line)
}

func (u *Recorder) targetLine(t *Target, complete bool) output {
	real, err := infile.RealPath(t.Path)
	if err != nil {
		real = ""
	}
	line := output{
		head: u.head("output"), Path: byteText(t.Path), Real: byteText(real), Kind: "in place", Device: infile.DeviceNumber(t.Stat.Dev), Inode: t.Stat.Ino,
		Size: t.Size(), Complete: complete,
	}
	if t.Stat.Block {
		line.Device, line.Inode = infile.DeviceNumber(t.Stat.Rdev), 0
	}
	if complete {
		written, zeroed := t.Written()
		line.Written, line.Zeroed = &written, &zeroed
	}
	return line
}

// endStreams records what went through standard input and output of a run that
// was done, or not. mu is held, and errors are kept by note.
func (u *Recorder) endStreams(done bool) {
	if u.stdin != nil {
		u.stdin.mu.Lock()
		n, sum := u.stdin.n, u.stdin.sum.Sum(nil)
		u.stdin.mu.Unlock()
		if n > 0 {
			_ = u.appendLocked(&input{head: u.head("input"), Path: "-", Kind: "stdin", Size: n, SHA256: hex.EncodeToString(sum)})
		}
	}
	if u.stdout == nil {
		return
	}
	if n, sum, whole := u.stdout.Written(); n > 0 || !whole {
		_ = u.appendLocked(output{head: u.head("output"), Path: "-", Kind: "stdout", Size: n, SHA256: sum, Complete: whole && done})
	}
}
