package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cbt/internal/fail"
	"cbt/internal/text"
)

// endpoint is where a server listens.
type endpoint struct {
	net.Listener
	socket  string // path of a Unix socket, "" if it is none
	address string // host:port, "" if it is none
	remove  func() // the socket
}

func (a *app) listen(opt *serveOptions) (*endpoint, error) {
	switch {
	case opt.tcp != "":
		return a.listenTCP(opt.tcp, opt.allowRemote)
	case opt.socket != "":
		path, err := filepath.Abs(opt.socket)
		if err != nil {
			return nil, err
		}
		return listenSocket(path)
	}
	dir, err := os.MkdirTemp("", "cbt-serve-")
	if err != nil {
		return nil, err
	}
	at, err := listenSocket(filepath.Join(dir, "socket"))
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	inner := at.remove
	at.remove = func() {
		inner()
		os.Remove(dir)
	}
	return at, nil
}

func (a *app) listenTCP(tcp string, remote bool) (*endpoint, error) {
	host, port, err := net.SplitHostPort(tcp)
	if _, numberErr := strconv.ParseUint(tcp, 10, 16); numberErr == nil {
		host, port, err = "", tcp, nil
	}
	if err != nil {
		return nil, fail.Usage("--tcp %s: must be HOST:PORT or PORT", text.Printable(tcp))
	}
	if host == "" {
		host = "127.0.0.1"
	}
	addr, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fail.Usage("--tcp %s: %v", text.Printable(tcp), err)
	}
	if !addr.IP.IsLoopback() {
		if !remote {
			return nil, fail.Usage("--tcp %s: other machines could reach it, and nothing is encrypted: --allow-remote says that this is meant", text.Printable(tcp))
		}
		a.Warnf("%s: NBD has no encryption and no passwords here: whoever reaches this address reads all that is served", addr)
	}
	l, err := net.ListenTCP("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fail.Busy("--tcp %s: %w", text.Printable(tcp), err)
	}
	if err != nil {
		return nil, fmt.Errorf("--tcp %s: %w", text.Printable(tcp), err)
	}
	return &endpoint{Listener: l, address: l.Addr().String(), remove: func() {}}, nil
}

// maxSocketPath is the longest path of a socket, on Linux; a few systems take
// less.
const maxSocketPath = 107

// listenSocket makes a socket that only its owner may connect to. One that a
// dead server left behind is replaced.
func listenSocket(path string) (*endpoint, error) {
	if len(path) > maxSocketPath {
		return nil, fail.Usage("%s: the path of a socket has at most %d bytes", path, maxSocketPath)
	}
	if err := clearSocket(path); err != nil {
		return nil, err
	}
	l, err := listenPrivately(path)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fail.Busy("%s: another server has just made it", path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	made, err := os.Lstat(path)
	if err != nil {
		l.Close()
		return nil, err
	}
	return &endpoint{Listener: l, socket: path, remove: func() {
		if st, err := os.Lstat(path); err == nil && os.SameFile(st, made) {
			os.Remove(path)
		}
	}}, nil
}

// clearSocket removes a socket that nobody listens on. It is moved away before,
// so that one which somebody makes at that very moment is not removed.
func clearSocket(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fail.Usage("%s: exists and is no socket", path)
	}
	if listens(path) {
		return fail.Busy("%s: another server listens on it", path)
	}
	aside := fmt.Sprintf("%s.%d", path, os.Getpid())
	if len(aside) > maxSocketPath {
		aside = filepath.Join(filepath.Dir(path), strconv.Itoa(os.Getpid()))
	}
	if err := os.Rename(path, aside); err != nil {
		return err
	}
	if listens(aside) {
		return errors.Join(fail.Busy("%s: another server listens on it", path), os.Rename(aside, path))
	}
	return os.Remove(aside)
}

// listens says whether a server may be there: whatever it answers, it is not
// the silence of one that is dead.
func listens(path string) bool {
	c, err := net.DialTimeout("unix", path, 5*time.Second)
	if err == nil {
		c.Close()
	}
	return !errors.Is(err, syscall.ECONNREFUSED)
}

// uri is the NBD URI of an export; see doc/uri.md of the NBD project.
func (at *endpoint) uri(name string) string {
	if at.socket != "" {
		return "nbd+unix:///" + percent(name) + "?socket=" + percent(at.socket)
	}
	return "nbd://" + at.reachable() + "/" + percent(name)
}

// reachable is an address that a client on this host can use.
func (at *endpoint) reachable() string {
	host, port, _ := net.SplitHostPort(at.address)
	switch ip := net.ParseIP(host); {
	case ip == nil || !ip.IsUnspecified():
		return at.address
	case ip.To4() != nil:
		host = "127.0.0.1"
	default:
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

// percent encodes all that RFC 3986 does not call unreserved, but for the
// slash, which may be in paths and queries.
func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// environment is what the command of --run finds, by the names that nbdkit uses
// where it has some.
func (at *endpoint) environment(list []served) []string {
	env := []string{"uri=" + at.uri(list[0].name), "exportname=" + list[0].name}
	if at.socket != "" {
		env = append(env, "unixsocket="+at.socket, "port=", "nbd=nbd:unix:"+at.socket)
	} else {
		host, port, _ := net.SplitHostPort(at.reachable())
		env = append(env, "unixsocket=", "port="+port, "nbd=nbd:"+net.JoinHostPort(host, port))
	}
	for i, s := range list {
		env = append(env, fmt.Sprintf("uri%d=%s", i+1, at.uri(s.name)))
	}
	return env
}
