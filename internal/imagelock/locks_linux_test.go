package imagelock_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"cbt/internal/imagelock"
	"cbt/internal/testtool"

	"golang.org/x/sys/unix"
)

func newImage(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "64M")
	return path
}

func open(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// holdOpen starts qemu-io, which has the image open when holdOpen returns and
// until the returned function is called, or the test ends.
func holdOpen(t *testing.T, args ...string) (closeIt func()) {
	t.Helper()
	cmd := exec.Command(testtool.Need(t, "qemu-io"), args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	closeIt = func() {
		once.Do(func() {
			in.Close()
			cmd.Wait()
		})
	}
	t.Cleanup(closeIt)
	io.WriteString(in, "length\n")
	answer := bufio.NewReader(out)
	if line, err := answer.ReadString('\n'); err != nil {
		t.Fatalf("qemu-io %v: %v: %s%s", args, err, line, errOut.String())
	}
	return closeIt
}

// qemuIO runs one command and gives back what was said, and whether it worked.
func qemuIO(t *testing.T, args ...string) (string, bool) {
	t.Helper()
	out, err := testtool.Try(t, "qemu-io", args...)
	return out, err == nil && !strings.Contains(out, "Failed to get")
}

func wantWriter(t *testing.T, f *os.File, want bool) {
	t.Helper()
	if got, err := imagelock.Writer(f); err != nil || got != want {
		t.Errorf("Writer = %t, %v, want %t", got, err, want)
	}
}

func wantBusy(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, imagelock.ErrBusy) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: %v, want %v", what, err, imagelock.ErrBusy)
	}
}

func wantFree(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func TestQEMUWriter(t *testing.T) {
	path := newImage(t)
	f := open(t, path, os.O_RDONLY)
	wantWriter(t, f, false)

	closeIt := holdOpen(t, path)
	wantWriter(t, f, true)
	wantBusy(t, "HoldRead beside a writer", imagelock.HoldRead(f))
	wantBusy(t, "HoldWrite beside a writer", imagelock.HoldWrite(f))
	closeIt()

	// What was refused left no locks behind.
	wantWriter(t, f, false)
	wantFree(t, "HoldWrite of another", imagelock.HoldWrite(open(t, path, os.O_RDWR)))
}

func TestQEMUReaders(t *testing.T) {
	path := newImage(t)
	f := open(t, path, os.O_RDWR)
	closeIt := holdOpen(t, "-r", path)
	wantWriter(t, f, false)
	wantBusy(t, "HoldWrite beside a reader", imagelock.HoldWrite(f))
	wantFree(t, "HoldRead beside a reader", imagelock.HoldRead(f))
	closeIt()
	wantFree(t, "HoldWrite by who holds for reading", imagelock.HoldWrite(f))
	f.Close()

	// Who shares writing may begin to write, or stand beside one who does.
	f = open(t, path, os.O_RDONLY)
	closeIt = holdOpen(t, "-U", "-r", path)
	wantWriter(t, f, true)
	wantFree(t, "HoldRead beside a reader that shares", imagelock.HoldRead(f))
	closeIt()
	wantWriter(t, f, false)
}

func TestHoldReadKeepsWritersOut(t *testing.T) {
	path := newImage(t)
	f := open(t, path, os.O_RDONLY)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantFree(t, "HoldRead", imagelock.HoldRead(f))
	}
	wantFree(t, "HoldRead of another", imagelock.HoldRead(open(t, path, os.O_RDONLY)))
	wantBusy(t, "HoldWrite of another", imagelock.HoldWrite(open(t, path, os.O_RDWR)))

	if out, ok := qemuIO(t, "-c", "write 0 64k", path); ok || !strings.Contains(out, `Failed to get "write" lock`) {
		t.Errorf("qemu-io wrote: %s", out)
	}
	if out, ok := qemuIO(t, "-r", "-c", "read 0 64k", path); !ok {
		t.Errorf("qemu-io -r did not read: %s", out)
	}
	testtool.Run(t, "qemu-img", "info", path)
	testtool.Run(t, "qemu-img", "convert", "-O", "raw", path, filepath.Join(t.TempDir(), "out.raw"))
	if out, err := testtool.Try(t, "qemu-img", "resize", path, "128M"); err == nil {
		t.Errorf("qemu-img resized: %s", out)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the image has changed: %v", err)
	}

	f.Close()
	if out, ok := qemuIO(t, "-c", "write 0 64k", path); ok {
		t.Errorf("qemu-io wrote although another still holds: %s", out)
	}
}

func TestHoldEndsWithClose(t *testing.T) {
	path := newImage(t)
	for name, hold := range map[string]func(*os.File) error{"HoldRead": imagelock.HoldRead, "HoldWrite": imagelock.HoldWrite} {
		f := open(t, path, os.O_RDWR)
		wantFree(t, name, hold(f))
		// Another descriptor's end is not this one's.
		open(t, path, os.O_RDWR).Close()
		if out, ok := qemuIO(t, "-c", "write 0 64k", path); ok {
			t.Errorf("%s: qemu-io wrote: %s", name, out)
		}
		f.Close()
		if out, ok := qemuIO(t, "-c", "write 0 64k", path); !ok {
			t.Errorf("%s, closed: qemu-io did not write: %s", name, out)
		}
	}
}

func TestHoldWriteKeepsAllOut(t *testing.T) {
	path := newImage(t)
	f := open(t, path, os.O_RDWR)
	wantFree(t, "HoldWrite", imagelock.HoldWrite(f))
	wantWriter(t, f, false) // besides f itself
	other := open(t, path, os.O_RDWR)
	wantWriter(t, other, true)
	wantBusy(t, "HoldRead of another", imagelock.HoldRead(other))
	wantBusy(t, "HoldWrite of another", imagelock.HoldWrite(other))
	for _, args := range [][]string{{"-c", "write 0 64k", path}, {"-r", "-c", "read 0 64k", path}} {
		if out, ok := qemuIO(t, args...); ok || !strings.Contains(out, "Failed to get") {
			t.Errorf("qemu-io %v: %s", args, out)
		}
	}
	if out, err := testtool.Try(t, "qemu-img", "info", path); err == nil {
		t.Errorf("qemu-img info of what is being written: %s", out)
	}
	testtool.Run(t, "qemu-img", "info", "-U", path)
}

func TestQEMUOnDevice(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	dev := testtool.Loop(t, disk)
	f := open(t, dev, os.O_RDWR)
	closeIt := holdOpen(t, "-f", "raw", dev)
	wantWriter(t, f, true)
	wantBusy(t, "HoldWrite beside a writer", imagelock.HoldWrite(f))
	closeIt()
	wantFree(t, "HoldWrite", imagelock.HoldWrite(f))
	if out, ok := qemuIO(t, "-f", "raw", "-c", "write 0 64k", dev); ok {
		t.Errorf("qemu-io wrote: %s", out)
	}
}

// TestHoldWriteRace never lets two have it, and always one.
func TestHoldWriteRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		var files [2]*os.File
		var errs [2]error
		for i := range files {
			files[i] = open(t, path, os.O_RDWR)
		}
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range files {
			wg.Go(func() {
				<-start
				errs[i] = imagelock.HoldWrite(files[i])
			})
		}
		close(start)
		wg.Wait()
		for i := range files {
			if errs[i] != nil {
				wantBusy(t, "HoldWrite", errs[i])
			}
			files[i].Close()
		}
		if errs[0] == nil && errs[1] == nil {
			t.Fatal("two hold one image for writing")
		}
		if errs[0] != nil && errs[1] != nil {
			t.Fatal("each kept the other out")
		}
	}
}

func TestForeignLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	other, f := open(t, path, os.O_RDWR), open(t, path, os.O_RDONLY)
	lock := func(kind int16, at, n int64) {
		t.Helper()
		if err := unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: at, Len: n}); err != nil {
			t.Fatal(err)
		}
	}
	all := []int64{100, 101, 102, 103, 200, 201, 202, 203}
	for _, c := range []struct {
		at          int64
		writer      bool
		read, write bool // may be held
	}{
		{99, false, true, true}, {100, true, true, false}, {101, true, false, false}, {102, false, true, false},
		{103, true, false, false}, {104, false, true, true}, {199, false, true, true}, {200, false, false, false},
		{201, false, true, false}, {202, false, true, false}, {203, false, true, false}, {204, false, true, true},
	} {
		lock(unix.F_RDLCK, c.at, 1)
		wantWriter(t, f, c.writer)
		for _, hold := range []struct {
			name string
			do   func(*os.File) error
			may  bool
		}{{"HoldRead", imagelock.HoldRead, c.read}, {"HoldWrite", imagelock.HoldWrite, c.write}} {
			g := open(t, path, os.O_RDWR)
			if err := hold.do(g); hold.may && err != nil {
				t.Errorf("byte %d locked: %s: %v", c.at, hold.name, err)
			} else if !hold.may {
				wantBusy(t, hold.name, err)
				for _, at := range all {
					l := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
					if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil || l.Type != unix.F_UNLCK && at != c.at {
						t.Errorf("%s refused, and byte %d stays locked: %v", hold.name, at, err)
					}
				}
			}
			g.Close()
		}
		lock(unix.F_UNLCK, c.at, 1)
	}

	lock(unix.F_WRLCK, 0, 0)
	wantWriter(t, f, true)
	wantBusy(t, "HoldRead of a file locked whole", imagelock.HoldRead(f))
	wantBusy(t, "HoldWrite of a file locked whole", imagelock.HoldWrite(f))

	f.Close()
	if _, err := imagelock.Writer(f); err == nil || errors.Is(err, imagelock.ErrBusy) {
		t.Errorf("Writer of a closed file: %v", err)
	}
	if err := imagelock.HoldRead(f); err == nil || errors.Is(err, imagelock.ErrBusy) {
		t.Errorf("HoldRead of a closed file: %v", err)
	}
}
