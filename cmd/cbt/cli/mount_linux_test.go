package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cbt/internal/fail"
	"cbt/internal/fuse"
	"cbt/internal/testtool"
	"cbt/sparse"
)

// mountTest is a mount by this process.
type mountTest struct {
	dir string
	end context.CancelFunc
	mu  sync.Mutex
	log bytes.Buffer
	out chan int // the exit code
}

func (m *mountTest) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.log.Write(p)
}

func (m *mountTest) stderr() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.log.String()
}

// mountFor runs cbt mount until the test ends.
func mountFor(t *testing.T, args ...string) *mountTest {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		t.Skip("mounting needs root and /dev/fuse: ", err)
	}
	m := &mountTest{dir: filepath.Join(t.TempDir(), "m"), out: make(chan int, 1)}
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	m.end = end
	r, w := io.Pipe()
	go func() {
		code := Run(ctx, Env{Stdin: strings.NewReader(""), Stdout: w, Stderr: m, Getenv: os.Getenv},
			append(append([]string{"mount", "--foreground"}, args...), m.dir))
		w.Close()
		m.out <- code
		close(m.out)
	}()
	lines := bufio.NewScanner(r)
	if !lines.Scan() || lines.Text() != m.dir {
		end()
		t.Fatalf("mount %q: exit %d: %s", args, <-m.out, m.stderr())
	}
	t.Cleanup(func() {
		end()
		<-m.out
		if err := fuse.Unmount(context.Background(), m.dir, false); err == nil {
			t.Error("was still mounted")
		}
	})
	return m
}

func (m *mountTest) path(name string) string { return filepath.Join(m.dir, name) }

// qemuImage is an image with snapshots "a", "b/c" and two called "twice".
func qemuImage(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	io := func(args ...string) { testtool.Run(t, "qemu-io", append(args, path)...) }
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "20000256")
	for i, name := range []string{"a", "b/c", "twice", "twice"} {
		io("-c", fmt.Sprintf("write -P %d %dM 1M", i+1, 2*i), "-c", fmt.Sprintf("write -P %d %dk 4k", i+11, 8*i+9000))
		testtool.Run(t, "qemu-img", "snapshot", "-c", name, path)
	}
	io("-c", "write -P 99 17M 1M", "-c", "write -z 0 64k")
	return path
}

// TestMountContent: every file is what qemu-img says it is, and the source stays what it is.
func TestMountContent(t *testing.T) {
	path := qemuImage(t)
	before := hashFiles(t, filepath.Dir(path))
	m := mountFor(t, path)
	for name, id := range map[string]string{"active": "", "snapshots/a": "1", "snapshots/b%2Fc": "2", "snapshots/twice%~3": "3", "snapshots/twice%~4": "4"} {
		want := filepath.Join(t.TempDir(), "want")
		args := []string{"convert", "-O", "raw"}
		if id != "" {
			args = append(args, "-l", "snapshot.id="+id)
		}
		testtool.Run(t, "qemu-img", append(args, path, want)...)
		file := m.path(name + "/disk.raw")
		if hashFile(t, file) != hashFile(t, want) {
			t.Errorf("%s is not what qemu-img reads", name)
		}
		// A copy with the holes that lseek tells, and one that looks for zeros.
		for _, how := range []string{"--sparse=auto", "--sparse=always"} {
			copied := filepath.Join(t.TempDir(), "copy")
			testtool.Run(t, "cp", how, file, copied)
			if hashFile(t, copied) != hashFile(t, want) {
				t.Errorf("cp %s of %s is something else", how, name)
			}
			if info, err := os.Stat(copied); err != nil || info.Sys().(*syscall.Stat_t).Blocks*512 > 12<<20 {
				t.Errorf("cp %s of %s has no holes: %v", how, name, err)
			}
		}
		st, err := os.Stat(file)
		if err != nil || st.Size() != 20000256 || st.Mode() != 0o400 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	// What qemu-img finds out by lseek is what the image says.
	o := newTestOpener(t, openerOptions{})
	src := mustOpen(t, o, path, refOptions{SnapshotID: "4"})
	f, err := os.Open(m.path("snapshots/twice%~4/disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw, err := sparse.OpenRaw(f)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for e, err := range raw.Extents(0, raw.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%d %d %v\n", e.Off, e.Len, e.Kind.ReadsZero())
	}
	if got.String() != joined(src.View) {
		t.Errorf("lseek tells\n%swant\n%s", got.String(), joined(src.View))
	}
	for _, bad := range []func() error{
		func() error { return os.WriteFile(m.path("active/disk.raw"), nil, 0) },
		func() error { return os.Remove(m.path("active/disk.raw")) },
		func() error { return os.Mkdir(m.path("x"), 0) },
		func() error { return os.Chmod(m.path("active"), 0o777) },
	} {
		if err := bad(); err == nil || !strings.Contains(err.Error(), "read-only file system") {
			t.Errorf("writing: %v", err)
		}
	}
	if after := hashFiles(t, filepath.Dir(path)); after != before {
		t.Error("the source changed")
	}
}

// joined is what a file system could tell of v: zeros and holes are the same.
func joined(v sparse.View) string {
	var b strings.Builder
	var last sparse.Extent
	put := func() {
		if last.Len > 0 {
			fmt.Fprintf(&b, "%d %d %v\n", last.Off, last.Len, last.Kind.ReadsZero())
		}
	}
	for e := range v.Extents(0, v.Size()) {
		if last.Len > 0 && e.Kind.ReadsZero() == last.Kind.ReadsZero() {
			last.Len += e.Len
			continue
		}
		put()
		last = e
	}
	put()
	return b.String()
}

// TestMountInodes: numbers and times stay, also when the kernel forgot the files.
func TestMountInodes(t *testing.T) {
	path := qemuImage(t)
	list := func() string {
		m := mountFor(t, path)
		defer func() { m.end(); <-m.out }()
		var b strings.Builder
		seen := map[uint64]bool{}
		err := filepath.WalkDir(m.dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			st := info.Sys().(*syscall.Stat_t)
			if seen[st.Ino] {
				t.Errorf("%s: inode %d twice", p, st.Ino)
			}
			seen[st.Ino] = true
			fmt.Fprintln(&b, strings.TrimPrefix(p, m.dir), st.Ino, st.Size, st.Mtim)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if a, b := list(), list(); a != b {
		t.Errorf("another mount shows\n%s, before\n%s", b, a)
	}
}

// TestMountReaders: many readers at once see what one does.
func TestMountReaders(t *testing.T) {
	path := qemuImage(t)
	m := mountFor(t, path)
	want := map[string][]byte{}
	files, err := filepath.Glob(m.path("snapshots/*/disk.raw"))
	if err != nil || len(files) != 4 {
		t.Fatal(files, err)
	}
	o := newTestOpener(t, openerOptions{})
	for i, f := range files {
		src := openNth(t, o, path, i)
		b := make([]byte, src.View.Size())
		if _, err := sparse.ReadFull(src.View, b, 0); err != nil {
			t.Fatal(err)
		}
		want[f] = b
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			for range 60 {
				name := files[r.IntN(len(files))]
				f, err := os.Open(name)
				if err != nil {
					t.Error(err)
					return
				}
				off := r.Int64N(20000256)
				n := min(r.Int64N(3<<20), 20000256-off)
				p := make([]byte, n)
				if _, err := f.ReadAt(p, off); err != nil || !bytes.Equal(p, want[name][off:off+n]) {
					t.Errorf("%s: %d bytes at %d: %v", name, n, off, err)
				}
				f.Close()
			}
		})
	}
	wg.Wait()
}

// TestMountSourceGone: what is no longer what it was gives errors, not other bytes.
func TestMountSourceGone(t *testing.T) {
	path := qemuImage(t)
	m := mountFor(t, path+"@a")
	p := make([]byte, 4096)
	f, err := os.Open(m.path("snapshots/a/disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(p, 0); err != nil || p[0] != 1 {
		t.Fatal(p[0], err)
	}
	testtool.Run(t, "qemu-img", "snapshot", "-d", "a", path)
	if _, err := f.ReadAt(p, 16<<20); err == nil {
		t.Error("a snapshot that was deleted is read")
	}
	if s := m.stderr(); !strings.Contains(s, "reading ") || !strings.Contains(s, path) {
		t.Errorf("the log says %q", s)
	}
}

// TestMountBusy: the end while somebody reads.
func TestMountBusy(t *testing.T) {
	m := mountFor(t, qemuImage(t))
	f, err := os.Open(m.path("active/disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if code, _, stderr := run(t, "umount", m.dir); code != fail.BusyCode || !strings.Contains(stderr, "in use") {
		t.Errorf("umount: exit %d: %s", code, stderr)
	}
	if code, _, stderr := run(t, "umount", t.TempDir()); code != fail.UsageCode || !strings.Contains(stderr, "nothing is mounted there") {
		t.Errorf("umount of something else: exit %d: %s", code, stderr)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		p := make([]byte, 1<<16)
		for off := int64(0); ; off = (off + 1<<16) % (16 << 20) {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := f.ReadAt(p, off); err != nil {
				t.Error("reading while it is taken away: ", err)
				return
			}
		}
	})
	if code, _, stderr := run(t, "umount", "--lazy", m.dir); code != 0 {
		t.Errorf("umount --lazy: exit %d: %s", code, stderr)
	}
	if entries, err := os.ReadDir(m.dir); err != nil || len(entries) > 0 {
		t.Error("is still there: ", entries, err)
	}
	time.Sleep(50 * time.Millisecond)
	close(stop)
	wg.Wait()
	f.Close()
	select {
	case code := <-m.out:
		if code != 0 {
			t.Errorf("exit %d: %s", code, m.stderr())
		}
	case <-time.After(time.Minute):
		t.Error("the mount does not end when nobody uses it any more")
	}
}

// TestMountKilled: a mount whose process is gone can be ended. The process is this test
// once more.
func TestMountKilled(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	path, dir := qemuImage(t), t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "mount", "--foreground", path, dir)
	cmd.Args[0] = "cbt" // see TestMain
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != dir+"\n" {
		_ = cmd.Process.Kill()
		t.Skipf("mount: %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if _, err := os.ReadDir(dir); err == nil {
		t.Error("nobody serves it, and it can be read")
	}
	if code, _, stderr := run(t, "umount", dir); code != 0 {
		t.Errorf("umount: exit %d: %s", code, stderr)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Error(entries, err)
	}
}
