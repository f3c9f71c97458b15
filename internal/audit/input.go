package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"cbt/internal/dm"
	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/text"
	"cbt/sparse"
)

// Reading is what one run reads: how many bytes and, with --audit, of which
// files. Every file that is opened for reading takes one.
type Reading struct {
	atomic.Int64
	Audit  *Recorder
	Frozen bool // the user says that nobody writes to what is read
}

// Open opens path for reading, after judge (nil: anything goes) had its say on
// its real path, and records it. Nothing else opens what is read.
func (r *Reading) Open(path string, judge func(real string) error) (*infile.Input, error) {
	f, err := infile.Open(path, judge)
	if err != nil {
		return nil, err
	}
	f.Count = &r.Int64
	if err := r.Audit.Input(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// fileVersion is a file as it was at one time.
type fileVersion struct {
	infile.ID
	size         int64
	mtime, ctime int64 // nanoseconds
}

type inputKey struct {
	path string
	fileVersion
}

// input is a line about something that was read.
type input struct {
	head
	Path   byteText   `json:"path"` // as it was named
	Real   byteText   `json:"real,omitempty"`
	Kind   string     `json:"kind"`             // file, device, state record, text, stdin, volume
	Device string     `json:"device,omitempty"` // major:minor, where it lies or of the device itself
	Inode  uint64     `json:"inode,omitempty"`
	Size   int64      `json:"size"`
	Mtime  *time.Time `json:"mtime,omitempty"`
	SHA256 string     `json:"sha256,omitempty"`
	Note   string     `json:"note,omitempty"`

	id    infile.ID
	ctime time.Time
	once  sync.Once
	err   error
}

// after is a line about an input at the end of the run.
type after struct {
	head
	Path    byteText   `json:"path"`
	Real    byteText   `json:"real"`
	Size    *int64     `json:"size,omitempty"`
	Mtime   *time.Time `json:"mtime,omitempty"`
	Ctime   *time.Time `json:"ctime,omitempty"` // if it is another one
	SHA256  string     `json:"sha256,omitempty"`
	Changed *bool      `json:"changed,omitempty"` // absent: not known
	Note    string     `json:"note,omitempty"`
}

func newSum() hash.Hash { return sha256.New() }

func versionOf(st infile.Stat) fileVersion {
	return fileVersion{st.Identity(), st.Size, st.Mtime.UnixNano(), st.Ctime.UnixNano()}
}

func newAuditInput(head head, path, real string, st infile.Stat) *input {
	in := &input{head: head, Path: byteText(path), Real: byteText(real), Kind: "file", Size: st.Size, id: st.Identity()}
	number := st.Dev
	if st.Block {
		in.Kind, number = "device", st.Rdev
	} else {
		in.Inode, in.Mtime, in.ctime = st.Ino, &st.Mtime, st.Ctime
	}
	in.Device = infile.DeviceNumber(number)
	return in
}

// Input records f, which was just opened, and with --hash before its content.
// The second time that a file is opened under one name it does nothing.
func (u *Recorder) Input(f *infile.Input) error {
	if u == nil {
		return nil
	}
	if st, err := f.Stat(); err == nil && os.SameFile(st, u.file) {
		return u.refuse(f.Path)
	}
	version := versionOf(f.Info)
	key := inputKey{f.Path, version}
	u.mu.Lock()
	in := u.inputs[key]
	if in == nil {
		in = newAuditInput(u.head("input"), f.Path, f.Real, f.Info)
		u.inputs[key] = in
		u.order = append(u.order, in)
	}
	sum := u.sums[version]
	u.mu.Unlock()
	in.once.Do(func() {
		if u.before && sum == "" {
			if sum, in.err = u.hashOf(f.File, f.Info.Size); in.err != nil {
				in.err = fmt.Errorf("%s: hashing it for --audit: %w", f.Path, in.err)
				return
			}
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		if sum != "" {
			in.SHA256 = sum
			u.sums[version] = sum
		}
		in.err = u.appendLocked(in)
	})
	return in.err
}

// hashOf is the SHA-256 of all bytes of f, which is left where it was opened:
// looking for holes moves what Read takes next.
func (u *Recorder) hashOf(f *os.File, size int64) (string, error) {
	return u.hashIn(u.ctx, f, size)
}

// hashAtEnd is hashOf also when a signal has ended the run in order, as it ends
// mounts and servers; another signal ends that too.
func (u *Recorder) hashAtEnd(f *os.File, size int64) (string, error) {
	HashingAtEnd.Store(true)
	defer HashingAtEnd.Store(false)
	return u.hashIn(context.WithoutCancel(u.ctx), f, size)
}

// HashingAtEnd says that a run that a signal ended is not stuck.
var HashingAtEnd atomic.Bool

func (u *Recorder) hashIn(ctx context.Context, f *os.File, size int64) (string, error) {
	if size == 0 {
		return hex.EncodeToString(newSum().Sum(nil)), nil
	}
	v, err := sparse.OpenRaw(f)
	if err != nil {
		return "", err
	}
	sum := newSum()
	bar := u.report.Start("hashing for the record", v.Size())
	defer bar.Finish()
	if err := sparse.WriteRange(ctx, sum, v, 0, v.Size(), bar.Add); err != nil {
		return "", err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// bytes records a small file that was read as a whole.
func (u *Recorder) bytes(kind, path string, content []byte, st infile.Stat) error {
	if u == nil {
		return nil
	}
	real, err := infile.RealPath(path)
	if err != nil {
		real = ""
	}
	in := newAuditInput(u.head("input"), path, real, st)
	in.Kind, in.Size, in.SHA256 = kind, int64(len(content)), fmt.Sprintf("%x", sha256.Sum256(content))
	key := inputKey{path + "\x00" + in.SHA256, versionOf(st)}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.inputs[key] != nil {
		return nil
	}
	u.inputs[key] = in
	return u.appendLocked(in)
}

// ReadFile reads a small file of at most limit bytes, of the given kind.
func (u *Recorder) ReadFile(kind, path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if u != nil && os.SameFile(info, u.file) {
		return nil, u.refuse(path)
	}
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("%s: has more than %d bytes", path, limit)
	}
	if err != nil {
		return nil, err
	}
	st, err := infile.StatOf(f)
	if err != nil {
		return nil, err
	}
	return content, u.bytes(kind, path, content, st)
}

// Device records a device of this host's volume groups. Its bytes are not
// hashed: other volumes, which machines write to, lie on it.
func (u *Recorder) Device(path string, number dm.Number, size int64) error {
	if u == nil {
		return nil
	}
	in := &input{
		head: u.head("input"), Path: byteText(path), Real: byteText(path), Kind: "volume", Device: number.String(), Size: size,
		Note: "a device of this host's LVM, which is in use: not hashed",
	}
	key := inputKey{path: path, fileVersion: fileVersion{size: size}}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.inputs[key] != nil {
		return nil
	}
	u.inputs[key] = in
	return u.appendLocked(in)
}

// MayChange says that only what is frozen in a file is read, while a machine
// may write to the rest; mustStand, which wins, that it may not.
func (u *Recorder) MayChange(id infile.ID) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, known := u.live[id]; !known {
		u.live[id] = true
	}
}

func (u *Recorder) MustStand(id infile.ID) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.live[id] = false
}

// recheck looks at all inputs again, with --hash after at their bytes too. The
// error is about the first that is not what it was.
func (u *Recorder) recheck() (first error) {
	u.mu.Lock()
	order := u.order
	u.mu.Unlock()
	seen := map[byteText]string{}
	for _, in := range order {
		if err := u.recheckOne(in, seen); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (u *Recorder) recheckOne(in *input, seen map[byteText]string) error {
	line := after{head: u.head("input-after"), Path: in.Path, Real: in.Real}
	changed, unhashed := false, false
	u.mu.Lock()
	mine, live := u.mine[string(in.Real)], u.live[in.id]
	u.mu.Unlock()
	if mine {
		changed = true
		line.Changed, line.Note = &changed, "removed or replaced by this run"
		return u.append(line)
	}
	sum, st, err := u.hashAfter(in, seen)
	if err != nil && st.Size == 0 && st.Ino == 0 {
		changed, line.Note = true, err.Error()
	} else {
		line.Size, line.SHA256 = &st.Size, sum
		changed = st.Size != in.Size || in.Mtime != nil && !st.Mtime.Equal(*in.Mtime)
		if in.Mtime != nil {
			line.Mtime = &st.Mtime
		}
		if in.Mtime != nil && !changed && !st.Ctime.Equal(in.ctime) {
			// Bytes tell, if they were hashed twice.
			line.Ctime = &st.Ctime
			changed = in.SHA256 == "" || sum != in.SHA256
			line.Note = "its ctime is another: it was written to and its mtime put back, or got another mode, owner or name"
		}
		if unhashed = err != nil; unhashed {
			line.Note = "not hashed: " + err.Error()
		}
	}
	other := in.SHA256 != "" && sum != "" && sum != in.SHA256
	switch {
	case (other || changed) && live:
		line.Note = "read through a snapshot, while something else wrote to it"
	case !u.after && !changed:
		return nil // nothing to tell
	}
	changed = changed || other
	if changed || !unhashed { // its bytes may be others, if nobody looked
		line.Changed = &changed
	}
	if err := u.append(line); err != nil {
		return err
	}
	switch {
	case u.after && err != nil:
		return fail.Exit(fail.Failed, "--hash %s: %w", u.hash, err)
	case other && !live:
		return fail.Exit(fail.Failed, "%s: changed while it was read: its SHA-256 was %s and is %s", text.Printable(string(in.Path)), in.SHA256, sum)
	case other:
		u.report.Warnf("%s: something else wrote to it; what was read is the snapshot", text.Printable(string(in.Path)))
	}
	return nil
}

// hashAfter looks at an input as it is now. Its hash is empty if nobody asked.
func (u *Recorder) hashAfter(in *input, seen map[byteText]string) (sum string, st infile.Stat, err error) {
	f, err := infile.Open(string(in.Real), nil)
	if err != nil {
		return "", st, err
	}
	defer f.Close()
	if f.Info.Identity() != in.id {
		return "", st, fmt.Errorf("%s: is another file now", in.Real)
	}
	if sum = seen[in.Real]; sum == "" && u.after {
		if sum, err = u.hashAtEnd(f.File, f.Info.Size); err != nil {
			return "", f.Info, fmt.Errorf("%s: %w", in.Real, err)
		}
		seen[in.Real] = sum
	}
	return sum, f.Info, nil
}

// hashedReader hashes what is read from standard input.
type hashedReader struct {
	r   io.Reader
	mu  sync.Mutex
	sum hash.Hash
	n   int64
}

func (h *hashedReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sum.Write(p[:n])
	h.n += int64(n)
	return n, err
}
