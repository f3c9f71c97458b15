package cli

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOpenFileRefusesKinds(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("dir", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo("fifo", 0o644); err != nil {
		t.Fatal(err)
	}
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sock)
	if err := unix.Bind(sock, &unix.SockaddrUnix{Name: "sock"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("link", "link"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"dir": "a directory", "fifo": "a pipe", "sock": "a socket", "/dev/null": "a character device",
		"missing": "no such file", "link": "too many levels",
	} {
		var o opener
		f, err := openFile(path, &o.reads, nil)
		if err == nil {
			f.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// What is judged is what is opened, whoever renames what in between.
func TestOpenFileIsNotRaced(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	if err := os.WriteFile("good", []byte("good"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("evil", []byte("evil"), 0o644); err != nil {
		t.Fatal(err)
	}
	var o opener
	f, err := openFile("good", &o.reads, func(real string) error {
		if real != filepath.Join(dir, "good") {
			t.Errorf("judged %q", real)
		}
		return os.Rename("evil", "good")
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := readHead(f, 10); string(b) != "good" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	if n := o.BytesRead(); n != 4 {
		t.Errorf("BytesRead = %d", n)
	}
}

// Reading leaves no trace, not even the time of the last access.
func TestOpenFileKeepsAccessTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	touch(t, path)
	old := time.Unix(1e9, 0)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	var o opener
	f, err := openFile(path, &o.reads, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := readHead(f, 1); err != nil {
		t.Fatal(err)
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if got := time.Unix(st.Atim.Unix()); !got.Equal(old) || !info.ModTime().Equal(old) {
		t.Errorf("accessed %v, modified %v; want %v", got, info.ModTime(), old)
	}
}
