package cli

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"cbt/internal/outfile"
)

// auditOutput is a line about something that was written.
type auditOutput struct {
	auditHead
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

// outFile is a new file, of which there is a line once it has its name.
type outFile struct {
	*outfile.File
	audit *audit
	path  string
	kind  string
}

// create begins a file as outfile.Create does.
func (u *audit) create(path string, replace bool) (*outFile, error) {
	if err := u.refuseSelf(path); err != nil {
		return nil, err
	}
	f, err := outfile.Create(path, replace)
	if err != nil {
		return nil, err
	}
	return &outFile{f, u, path, "file"}, nil
}

// probe says why create would fail, without making anything.
func (u *audit) probe(path string, replace bool) error {
	if err := u.refuseSelf(path); err != nil {
		return err
	}
	return outfile.Probe(path, replace)
}

// Commit gives the file its name, and then records it.
func (f *outFile) Commit() error {
	if err := f.File.Commit(); err != nil {
		return err
	}
	return f.audit.wrote(f.kind, f.path)
}

// commitTogether is Commit of many files, those of a group before those of the
// next.
func commitTogether(groups ...[]*outFile) error {
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
			if err := f.audit.wrote(f.kind, f.path); err != nil {
				return err
			}
		}
	}
	return nil
}

// createIn begins a file in dir as outfile.CreateIn does.
func (u *audit) createIn(dir, prefix, suffix string) (*outFile, error) {
	f, err := outfile.CreateIn(dir, prefix, suffix)
	if err != nil {
		return nil, err
	}
	return &outFile{f, u, dir, "file"}, nil
}

// CommitAs gives a file of createIn its name, and then records it.
func (f *outFile) CommitAs(name string) error {
	if err := f.File.CommitAs(name); err != nil {
		return err
	}
	return f.audit.wrote(f.kind, filepath.Join(f.path, name))
}

// writeFile puts data under path as outfile.WriteFile does.
func (u *audit) writeFile(kind, path string, data []byte) error {
	f, err := u.create(path, true)
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

// wrote records a file that has its name and its content, which is read again.
func (u *audit) wrote(kind, path string) error {
	if u == nil {
		return nil
	}
	f, err := openReadOnly(path, nil)
	if err != nil {
		return fmt.Errorf("--audit: reading what was written: %w", err)
	}
	defer f.Close()
	line := auditOutput{
		Path: byteText(path), Real: byteText(f.real), Kind: kind, Device: deviceNumber(f.stat.dev), Inode: f.stat.ino, Size: f.stat.size, Complete: true,
	}
	if line.SHA256, err = u.hashOf(f.File, f.stat.size); err != nil {
		return fmt.Errorf("%s: hashing it for --audit: %w", path, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mine[f.real] = true
	line.auditHead = u.head("output")
	return u.appendLocked(line)
}

// again opens a file that this run wrote, and of which there is a line.
func (u *audit) again(path string) (*inFile, error) { return openReadOnly(path, nil) }

// remove removes a file, and records that.
func (u *audit) remove(path string) error {
	if u == nil {
		return os.Remove(path)
	}
	if err := u.refuseSelf(path); err != nil {
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
	return u.appendLocked(auditOutput{auditHead: u.head("output"), Path: byteText(path), Real: byteText(real), Kind: "removed", Size: st.Size(), Complete: true})
}

// refuseSelf refuses to write to the record.
func (u *audit) refuseSelf(path string) error {
	if u == nil {
		return nil
	}
	if st, err := os.Stat(path); err == nil && os.SameFile(st, u.file) {
		return u.refuse(path)
	}
	return nil
}

// auditTarget is a target that is written in place.
type auditTarget struct {
	path    string
	stat    fileStat
	size    func() int64
	written func() (written, zeroed int64)
}

// begin notes that a target is being written in place: if the run ends before
// finishTarget, the record says that it is incomplete.
func (u *audit) begin(t *auditTarget) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.targets = append(u.targets, t)
}

// finishTarget records a target that was written in place, from a point to
// another by deltas of these IDs; with --hash after all of its bytes, read again.
func (u *audit) finishTarget(t *auditTarget, from, to string, deltas []string) (err error) {
	if u == nil {
		return nil
	}
	line := u.targetLine(t, true)
	line.From, line.To, line.Deltas = from, to, deltas
	if u.after {
		f, err := openReadOnly(t.path, nil)
		if err == nil {
			defer f.Close()
			line.Size = f.stat.size
			line.SHA256, err = u.hashOf(f.File, f.stat.size)
		}
		if err != nil {
			return fmt.Errorf("%s: hashing it for --audit: %w", t.path, err)
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
	line.auditHead = u.head("output")
	return u.appendLocked(line)
}

func (u *audit) targetLine(t *auditTarget, complete bool) auditOutput {
	real, err := realPath(t.path)
	if err != nil {
		real = ""
	}
	line := auditOutput{
		auditHead: u.head("output"), Path: byteText(t.path), Real: byteText(real), Kind: "in place", Device: deviceNumber(t.stat.dev), Inode: t.stat.ino,
		Size: t.size(), Complete: complete,
	}
	if t.stat.block {
		line.Device, line.Inode = deviceNumber(t.stat.rdev), 0
	}
	if complete {
		written, zeroed := t.written()
		line.Written, line.Zeroed = &written, &zeroed
	}
	return line
}

// endStreams records what went through standard input and output of a run that
// was done, or not. mu is held, and errors are kept by note.
func (u *audit) endStreams(done bool) {
	if u.stdin != nil {
		u.stdin.mu.Lock()
		n, sum := u.stdin.n, u.stdin.sum.Sum(nil)
		u.stdin.mu.Unlock()
		if n > 0 {
			_ = u.appendLocked(&auditInput{auditHead: u.head("input"), Path: "-", Kind: "stdin", Size: n, SHA256: hex.EncodeToString(sum)})
		}
	}
	if u.stdout == nil {
		return
	}
	if n, sum, whole := u.stdout.written(); n > 0 || !whole {
		_ = u.appendLocked(auditOutput{auditHead: u.head("output"), Path: "-", Kind: "stdout", Size: n, SHA256: sum, Complete: whole && done})
	}
}
