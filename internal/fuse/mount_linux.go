package fuse

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"cbt/internal/tree"
)

// Missing says what mounting needs and is not there.
func Missing() error { return missing("/dev/fuse", os.Geteuid() == 0, fusermount) }

func missing(device string, root bool, program func() (string, error)) error {
	if !root {
		if _, err := program(); err != nil {
			return ErrNoProgram
		}
		if _, err := os.Stat(device); err != nil {
			return fmt.Errorf("%w: %w", ErrNoDevice, err)
		}
		return nil
	}
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoDevice, err)
	}
	return f.Close()
}

// fusermount is the path of the program that mounts for users. It is looked for where
// go-fuse does.
func fusermount() (path string, err error) {
	for _, name := range []string{"fusermount3", "/bin/fusermount3", "fusermount", "/bin/fusermount"} {
		if path, err = exec.LookPath(name); err == nil {
			break
		}
	}
	return path, err
}

// maxRequest is how much the kernel asks for at once, and readAhead how far it
// reads ahead of who reads in order: several requests that run at a time.
const (
	maxRequest = 1 << 20
	readAhead  = 4 << 20
)

// Server is a mount.
type Server struct {
	dir    string
	server *gofuse.Server
	done   chan struct{}
}

// Mount shows t at dir, a directory, from when it returns. Serve waits for the end.
func Mount(ctx context.Context, dir string, t *tree.Tree, opt Options) (*Server, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, done: make(chan struct{})}
	root := os.Geteuid() == 0
	m := &gofuse.MountOptions{
		Name: Name, FsName: opt.Source, AllowOther: opt.AllowOther,
		MaxWrite: maxRequest, MaxBackground: 32, DirectMount: root,
		DirectMountFlags: unix.MS_NOSUID | unix.MS_NODEV,
		Options:          []string{"default_permissions"},
		// What is sent is in memory, never in a file.
		DisableSplice: true,
		Logger:        log.New(logWriter(opt.Log), "", 0),
		PanicHandler: func(v any) gofuse.Status {
			opt.Log("internal error: %v", v)
			return gofuse.EIO
		},
	}
	if !opt.Writable {
		m.DirectMountFlags |= unix.MS_RDONLY
		if !root {
			m.Options = append(m.Options, "ro")
		}
	}
	s.server, err = gofuse.NewServer(&fs{
		RawFileSystem: gofuse.NewDefaultRawFileSystem(),
		ctx:           ctx, tree: t, opt: opt, nodes: newNodes(t.Root),
		uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()),
	}, dir, m)
	if err != nil {
		return nil, mountError(dir, err)
	}
	go func() {
		defer close(s.done)
		s.server.Serve()
	}()
	if err := s.server.WaitMount(); err != nil {
		_ = s.Unmount(true)
		return nil, fmt.Errorf("%s: mount: %w", dir, err)
	}
	if root {
		setReadAhead(dir)
	}
	return s, nil
}

// mountError is the error of a mount that failed.
func mountError(dir string, err error) error {
	if strings.HasPrefix(err.Error(), "fusermount exited") { // with a wait status, which nobody understands
		return fmt.Errorf("%s: %w", dir, ErrRefused)
	}
	return fmt.Errorf("%s: mount: %w", dir, err)
}

// setReadAhead has the kernel read ahead, where it lets us. By itself it stops
// at 128 KiB.
func setReadAhead(dir string) {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return
	}
	path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev))
	_ = os.WriteFile(path, []byte(strconv.Itoa(readAhead>>10)), 0)
}

// logWriter gives lines of a log.Logger to a log function.
type logWriter func(format string, args ...any)

func (w logWriter) Write(p []byte) (int, error) {
	w("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

// Serve waits until the file system is unmounted.
func (s *Server) Serve() { <-s.done }

// Unmount ends the mount. While somebody uses it, it fails with ErrBusy; with
// lazy it goes away at once, and ends when nobody uses it any more.
func (s *Server) Unmount(lazy bool) error { return unmount(s.dir, lazy) }

func unmount(dir string, lazy bool) error {
	var err error
	if os.Geteuid() == 0 {
		flags := unix.UMOUNT_NOFOLLOW
		if lazy {
			flags |= unix.MNT_DETACH
		}
		err = unix.Unmount(dir, flags)
	} else {
		args := []string{"-u", dir}
		if lazy {
			args = []string{"-u", "-z", dir}
		}
		program, missing := fusermount()
		if missing != nil {
			return fmt.Errorf("%s: umount: %w", dir, ErrNoProgram)
		}
		var out []byte
		out, err = exec.Command(program, args...).CombinedOutput()
		if text := strings.TrimSpace(string(out)); err != nil && text != "" {
			err = errors.New(text)
			if strings.Contains(text, "busy") {
				err = unix.EBUSY
			}
		}
	}
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s: %w", dir, ErrBusy)
	}
	if err != nil {
		return fmt.Errorf("%s: umount: %w", dir, err)
	}
	return nil
}

// Unmount ends the mount at dir, whoever serves it, be it nobody any more, and
// waits for the server to end, for a few seconds. What is no mount of this
// package is ErrNotMounted.
func Unmount(ctx context.Context, dir string, lazy bool) error {
	dir, err := mountedAt(dir)
	if err != nil {
		return err
	}
	server := serverOf(dir)
	defer unix.Close(server)
	if err := unmount(dir, lazy); err != nil || lazy || server < 0 {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	for ctx.Err() == nil && time.Now().Before(deadline) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(server), Events: unix.POLLIN}}, 100)
		if n > 0 || err != nil && err != unix.EINTR {
			break
		}
	}
	return nil
}

// serverOf is a descriptor of the process that serves a mount, -1 if there is none to
// be found.
func serverOf(dir string) int {
	value := make([]byte, 20)
	n, err := unix.Getxattr(dir, pidAttr, value)
	if err != nil {
		return -1
	}
	pid, err := strconv.Atoi(string(value[:n]))
	if err != nil {
		return -1
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1
	}
	return fd
}

// mountedAt is the path of dir as the kernel has it, if that is a mount of this package. It
// does not touch dir itself, whose server may be gone.
func mountedAt(dir string) (string, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	} else if parent, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(parent, filepath.Base(path))
	} else {
		return "", err
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	kind := ""
	for line := range strings.Lines(string(table)) {
		// ID parent major:minor root MOUNTPOINT options [optional...] - TYPE source options
		before, after, _ := strings.Cut(line, " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if len(fields) > 4 && len(rest) > 0 && unescapeMount(fields[4]) == path {
			kind = rest[0] // the last one is on top
		}
	}
	switch kind {
	case "fuse." + Name:
		return path, nil
	case "":
		return "", fmt.Errorf("%s: is %w: nothing is mounted there", dir, ErrNotMounted)
	}
	return "", fmt.Errorf("%s: is %w, but %s", dir, ErrNotMounted, kind)
}

// unescapeMount undoes what the kernel does to names in mountinfo: \ooo.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
