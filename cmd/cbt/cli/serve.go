package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/nbd"
	"cbt/internal/store"
	"cbt/internal/text"
)

type serveOptions struct {
	source      openerOptions
	ref         refOptions
	chain       store.ChainOptions
	overlay     overlayOptions
	socket, tcp string
	allowRemote bool
	run         string
}

func newServeCommand(a *app) *cobra.Command {
	opt := &serveOptions{}
	c := &cobra.Command{
		Use:   "serve REF... --socket PATH | --tcp ADDR",
		Short: "serve images by the NBD protocol",
		Long: `serve makes images readable for whatever speaks NBD: QEMU, nbdcopy, nbd-client,
nbdfuse. It restores nothing and never writes to what it serves. Several REF are
several exports, each under its own name, or that of NAME=REF; the first is also
what a client gets that names none.

When it is ready it prints the URI of each export, and serves until it is
stopped by a signal. With --run CMD it runs CMD by the shell, with $uri ($uri1,
$uri2, ... if there are several), $unixsocket or $port in its environment, ends
when that ends, with its exit code, and needs neither --socket nor --tcp.

A socket is for its owner alone. NBD has no encryption and no passwords here:
--tcp takes no address that other machines reach, unless --allow-remote is given.`,
		Example: `  cbt serve disk.qcow2@monday --socket monday.sock
  cbt serve root=backups/@latest data=data.qcow2@tue --tcp 127.0.0.1:10809
  cbt serve backups/@latest --run 'nbdinfo --map "$uri"'
  cbt serve backups/@2026-11-24 --run 'qemu-img convert -p "$uri" -O qcow2 that-day.qcow2'
  cbt serve backups/@latest --run 'qemu-system-x86_64 -m 1G -snapshot -drive "file=$uri,format=raw,if=virtio"'
  cbt serve vm.save@pc.ram --run 'nbdcopy "$uri" pc.ram'

  cbt serve backups/@latest --overlay tmp --socket /run/vm1.sock &
  nbd-client -unix /run/vm1.sock /dev/nbd0 && mount /dev/nbd0p1 /srv`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.WrongBaseCode, fail.BusyCode),
		Args:        wantArgs("REF..."),
		RunE: func(c *cobra.Command, args []string) error {
			return a.serve(c.Context(), args, opt)
		},
	}
	flags := c.Flags()
	flags.StringVar(&opt.socket, "socket", "", "listen on a Unix socket, made at `PATH` and removed at the end")
	flags.StringVar(&opt.tcp, "tcp", "", "listen on `HOST:PORT`, or on PORT of this host alone (0: any that is free)")
	flags.BoolVar(&opt.allowRemote, "allow-remote", false, "--tcp may be an address that other machines reach: nothing is encrypted")
	flags.StringVar(&opt.run, "run", "", "serve while the shell runs `CMD`")
	opt.source.addFlags(flags)
	opt.ref.addFlags(flags, "", "each REF")
	addChainFlag(&opt.chain, flags)
	opt.overlay.addFlags(flags)
	return c
}

func (opt *serveOptions) check(args []string) error {
	switch path := opt.overlay.path; {
	case path != "" && path != overlayTmp && len(args) > 1:
		return fail.Usage("serve: --overlay %s is for one image: each of several needs its own, or --overlay tmp", text.Quote(path))
	case opt.socket != "" && opt.tcp != "":
		return fail.Usage("serve: --socket and --tcp exclude each other")
	case opt.socket == "" && opt.tcp == "" && opt.run == "":
		return fail.Usage("serve: --socket PATH or --tcp ADDR says where to listen, or --run what to do")
	case opt.allowRemote && opt.tcp == "":
		return fail.Usage("serve: --allow-remote is about --tcp")
	}
	return nil
}

// served is an image that is served, and its name.
type served struct {
	name string
	*source
	export nbd.Export
}

func (a *app) serve(ctx context.Context, args []string, opt *serveOptions) (err error) {
	if err := opt.check(args); err != nil {
		return err
	}
	o, err := a.newOpener(opt.source)
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	o.chainFrom(opt.chain)
	o.lockChains(opt.chain)
	list, err := o.openServed(ctx, args, opt)
	if err != nil {
		return err
	}
	// What is served is frozen, so it needs no held metadata; see livePool.
	if err := o.releasePools(); err != nil {
		return err
	}
	var exports []nbd.Export
	for _, s := range list {
		defer s.Close()
		a.sayLevel(s.Ref, s.consistency())
		exports = append(exports, s.export)
	}
	server, err := nbd.New(exports, nbd.Limits{}, func(line string) { a.Warnf("%s", line) })
	if err != nil {
		return err
	}
	defer keepPipesQuiet()()
	at, err := a.listen(opt)
	if err != nil {
		return err
	}
	defer at.remove()
	defer boundMemory(len(exports))()
	err = a.serveUntil(ctx, server, at, list, opt)
	written, also := o.syncOverlays()
	if opt.overlay.path != "" {
		a.Notef("%s written to the overlay", text.Size(written))
	}
	if also != nil {
		err = errors.Join(err, also)
	}
	if cause := context.Cause(ctx); cause != nil && (err == nil || err == cause) {
		return cause
	}
	return err
}

// serveUntil serves until ctx is done or the command of --run has ended.
func (a *app) serveUntil(ctx context.Context, server *nbd.Server, at *endpoint, list []served, opt *serveOptions) error {
	serving, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(serving, at.Listener) }()
	if opt.run == "" {
		err := a.printServed(at, list)
		if err != nil {
			stop()
			<-ended
			return err
		}
		return <-ended
	}
	failed := make(chan error, 1)
	running, end := context.WithCancelCause(ctx)
	go func() {
		err := <-ended
		end(err) // there is nothing left to run the command for
		failed <- err
	}()
	err := a.runCommand(running, opt.run, at.environment(list))
	stop()
	if broken := <-failed; broken != nil {
		return broken
	}
	return err
}

// lockChains keeps prune out of the directories of the chains that are opened
// from now on.
func (o *opener) lockChains(chain store.ChainOptions) {
	open := o.openDelta
	o.openDelta = func(ctx context.Context, path string, ref refOptions) (*source, error) {
		dir := chain.Dir
		if dir == "" {
			dir = filepath.Dir(path)
		}
		if err := o.Share(ctx, dir, o.Wait.d); err != nil {
			return nil, err
		}
		return open(ctx, path, ref)
	}
}

// openServed opens what args name.
func (o *opener) openServed(ctx context.Context, args []string, opt *serveOptions) ([]served, error) {
	var list []served
	for _, arg := range args {
		name, ref, err := splitExport(arg)
		if err != nil {
			return nil, err
		}
		src, err := o.open(ctx, ref, opt.ref)
		if err != nil {
			return nil, err
		}
		if name == "" {
			name = exportName(src, cmp.Or(o.Resolved[ref], ref))
		}
		for _, s := range list {
			if s.name == name {
				return nil, fail.Usage("%s and %s would both have the name %s: NAME=REF gives another", s.Ref, ref, text.Printable(name))
			}
		}
		list = append(list, served{name: name, source: src})
	}
	for i, s := range list {
		// Only now: what is looked at are all files that were opened.
		view, err := o.guarded(ctx, s.source)
		if err != nil {
			return nil, err
		}
		if path := opt.overlay.path; path != "" {
			if view, err = o.overlay(s.source, view, path); err != nil {
				return nil, err
			}
		}
		list[i].export = nbd.Export{Name: s.name, Description: describeServed(s.source), View: view}
	}
	return list, nil
}

// splitExport parts NAME=REF. What exists is a REF, whatever its name.
func splitExport(arg string) (name, ref string, err error) {
	name, ref, ok := strings.Cut(arg, "=")
	if !ok || name == "" || name[0] == '.' || strings.ContainsAny(name, "/\\@:") || infile.Exists(arg) {
		return "", arg, nil
	}
	switch {
	case ref == "":
		return "", "", fail.Usage("%s: no reference after the =: is a variable unset?", text.Printable(arg))
	case len(name) > 255 || !utf8.ValidString(name) || strings.ContainsFunc(name, text.Unprintable):
		return "", "", fail.Usage("%s: the name of an export is at most 255 bytes of printable text", text.Printable(arg))
	}
	return name, ref, nil
}

// exportName makes a name of a reference, of characters that need no quoting
// anywhere.
func exportName(src *source, ref string) string {
	if src.vol == nil && src.bare == nil {
		dir, base := filepath.Split(src.Path)
		ref = base + strings.TrimPrefix(strings.TrimPrefix(ref, dir), base)
	}
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '-'
	}, strings.TrimPrefix(ref, lvmPrefix))
	return name[:min(len(name), 255)]
}

// describeServed is what clients show. Where files lie is not for them.
func describeServed(src *source) string {
	text := src.Format + " image"
	if !src.Instant.IsZero() {
		text += " of " + src.Instant.UTC().Format(time.RFC3339)
	}
	return text
}

// servedJSON describes an export with --json.
type servedJSON struct {
	Name     string `json:"name"`
	URI      string `json:"uri"`
	Ref      string `json:"ref"`
	Size     int64  `json:"size"`
	ReadOnly bool   `json:"read-only"`
	Socket   string `json:"socket,omitempty"`
	Address  string `json:"address,omitempty"`
	Level    string `json:"consistency,omitempty"` // of a delta
}

// printServed says that clients may come.
func (a *app) printServed(at *endpoint, list []served) error {
	for _, s := range list {
		var err error
		if a.json {
			_, writable := s.export.View.(nbd.Writable)
			var line []byte // one, so that a script knows when it has read all of it
			line, err = json.Marshal(servedJSON{s.name, at.uri(s.name), s.Ref, s.View.Size(), !writable, at.socket, at.address, string(s.consistency())})
			if err == nil {
				_, err = fmt.Fprintln(a.Stdout, text.EscapeJSON(string(line)))
			}
		} else {
			_, err = fmt.Fprintln(a.Stdout, at.uri(s.name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keepPipesQuiet makes a client that hangs up while it is written to the end
// of its connection, not of the program.
func keepPipesQuiet() (undo func()) {
	caught := make(chan os.Signal, 1)
	signal.Reset(syscall.SIGPIPE)
	signal.Notify(caught, syscall.SIGPIPE)
	return func() { signal.Stop(caught) }
}

// Memory that serving takes beyond what is there when all is open: requests
// under way, and what is kept of a chain for each export.
const (
	servedRequests = 64 << 20
	servedCache    = 36 << 20
)

// boundMemory has the collector leave less garbage when much is under way,
// unless GOMEMLIMIT already says how much there may be.
func boundMemory(exports int) (undo func()) {
	old := debug.SetMemoryLimit(-1)
	if old != math.MaxInt64 {
		return func() {}
	}
	runtime.GC()
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	debug.SetMemoryLimit(int64(now.HeapAlloc) + servedRequests + int64(exports)*servedCache)
	return func() { debug.SetMemoryLimit(old) }
}
