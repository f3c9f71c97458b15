package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/fuse"
	"cbt/internal/infile"
	"cbt/internal/outfile"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/internal/tree"
)

type mountOptions struct {
	source     openerOptions
	ref        refOptions
	chain      store.ChainOptions
	overlay    overlayOptions
	spoolDir   string
	together   bool
	snapshots  bool // no active states
	machine    string
	foreground bool
	readyFD    int // of the process that waits for a mount in the background; 0: none
	allowOther bool
	logFile    string
}

func newMountCommand(a *app) *cobra.Command {
	opt := &mountOptions{}
	c := &cobra.Command{
		Use:   "mount REF... DIR",
		Short: "show images, their snapshots and all points of chains as files",
		Long: `mount shows images as files in DIR, an empty directory, without copying anything:

  DIR/active/disk.raw                       what a machine that starts sees
  DIR/snapshots/NAME/disk.raw               an internal snapshot
  DIR/points/NAME/disk.raw                  the state after NAME.cbt
  .../partitions/1.raw                      partitions of that disk
  .../lvm/VG/LV.raw                         logical volumes inside it
  .../ram/pc.ram, core.elf                  RAM that was saved with it

An image has active/ and snapshots/, REF@SNAPSHOT that snapshot alone, a raw file, a
device, a volume and a saved machine state active/ alone, a delta its point, and a
directory of deltas all of its points. Of several REFs each has a directory of its own.

It returns when the files are there and prints DIR; cbt umount ends it. Files can be
read only, and reading one whose source is no longer what it was fails.

The file system of a machine that was running has a journal to replay, which is a
write. --overlay tmp allows that, and the images stay as they are. Without it the
kernel refuses to mount it, but for mount -o ro,loop,noload (ext3, ext4) and
ro,loop,norecovery,nouuid (XFS). Then the journal is not replayed: directories and
files may be inconsistent, or not be there.`,
		Example: `  cbt mount --overlay tmp disk.qcow2 /mnt
  mount -o loop /mnt/snapshots/monday/partitions/1.raw /srv
  umount /srv && cbt umount /mnt

  cbt mount backups/@2026-11-24 /mnt
  mount -o ro,loop,noload /mnt/points/*/partitions/1.raw /srv
  umount /srv && cbt umount /mnt`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.WrongBaseCode, fail.BusyCode),
		Args:        wantArgs("REF...", "DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.mount(c.Context(), args[:len(args)-1], args[len(args)-1], opt)
		},
	}
	flags := c.Flags()
	opt.source.addFlags(flags)
	opt.ref.addFlags(flags, "", "REF")
	addChainFlag(&opt.chain, flags)
	opt.overlay.addFlags(flags)
	flags.StringVar(&opt.spoolDir, "spool-dir", "", "`DIR` where what is written with --overlay tmp is kept, and states are unpacked (default: TMPDIR or /var/tmp)")
	flags.BoolVar(&opt.together, "together", false, "the REFs, each of which names one state, are the disks of one machine")
	flags.BoolVar(&opt.snapshots, "snapshots", false, "leave active states out, so that machines can start meanwhile")
	flags.StringVar(&opt.machine, "machine", "", "QEMU's machine `TYPE` (pc, q35), which tells where RAM is, for states that name none")
	flags.BoolVar(&opt.foreground, "foreground", false, "stay until the mount ends, instead of going on in the background")
	flags.BoolVar(&opt.allowOther, "allow-other", false, "let other users read the files too")
	flags.StringVar(&opt.logFile, "log-file", "", "append what goes wrong later to `FILE`; without it a mount in the background says nothing")
	flags.IntVar(&opt.readyFD, "ready-fd", 0, "")
	// Only this program uses it, between two processes.
	_ = flags.MarkHidden("ready-fd")
	return c
}

// mount shows refs at dir until somebody unmounts that.
func (a *app) mount(ctx context.Context, refs []string, dir string, opt *mountOptions) error {
	if len(refs) > 1 && (opt.ref.Snapshot != "" || opt.ref.SnapshotID != "") {
		return fail.Usage("%s and %s are for one REF: name the others as REF@NAME", opt.ref.flag("snapshot"), opt.ref.flag("snapshot-id"))
	}
	if err := fuse.Missing(); err != nil {
		return fuseError(err, refs)
	}
	dir, err := mountPoint(dir, refs)
	if err != nil {
		return err
	}
	if !opt.foreground && opt.readyFD == 0 {
		return a.mountInBackground(ctx, dir)
	}
	log, err := a.mountLog(opt)
	if err != nil {
		return err
	}
	defer log.close()
	m := newMounting(ctx, a, opt, log)
	defer m.close()
	root, err := m.root(refs)
	if err != nil {
		return err
	}
	server, err := fuse.Mount(ctx, dir, tree.New(root), fuse.Options{
		Source: mountSource(refs), AllowOther: opt.allowOther, Writable: opt.overlay.path != "", Log: log.Warnf,
	})
	if errors.Is(err, fuse.ErrRefused) {
		return fuseError(err, refs)
	}
	if err != nil {
		return err
	}
	if err := a.mounted(dir, opt, log); err != nil {
		_ = server.Unmount(true)
		server.Serve()
		return err
	}
	if a.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(mountGC))
	}
	return errors.Join(a.serveMount(ctx, server, log), m.sync())
}

// mountGC has the collector run when a quarter of what is in use was thrown away:
// chunks are large, and most of what a mount reads is thrown away soon.
const mountGC = 25

// serveMount waits until the mount ends, and ends it when ctx does.
func (a *app) serveMount(ctx context.Context, server *fuse.Server, log *mountLog) error {
	ended := make(chan struct{})
	go func() {
		server.Serve()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	err := server.Unmount(false)
	if errors.Is(err, fuse.ErrBusy) {
		log.Warnf("%v: it is taken away, and ends for those who use it too", err)
		err = server.Unmount(true)
	}
	if err == nil {
		// Those who use it have until the signal's grace is over.
		<-ended
	}
	return errors.Join(context.Cause(ctx), err)
}

// fuseError says what to do about what mounting needs and is not there.
func fuseError(err error, refs []string) error {
	way := ""
	switch {
	case errors.Is(err, fuse.ErrNoDevice):
		way = ": modprobe fuse loads the kernel's part, a container has to be given the device (docker run --device /dev/fuse --cap-add SYS_ADMIN)"
	case errors.Is(err, fuse.ErrNoProgram):
		way = ": it is in the package fuse3; root does without"
	}
	serve := "cbt serve"
	for _, ref := range refs {
		serve += " " + text.Quote(text.PathArgument(ref))
	}
	return fmt.Errorf("mount: %w%s; without FUSE, %s shows images by NBD", err, way, serve)
}

// mountPoint is the absolute path of the directory to mount at.
func mountPoint(dir string, refs []string) (string, error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%w: the directory to mount at has to be there", store.DirError(dir, err))
	case errors.Is(err, syscall.ENOTDIR):
		return "", store.DirError(dir, err)
	case errors.Is(err, syscall.ENOTCONN):
		return "", fmt.Errorf("%s: a mount whose server was killed is there: cbt umount %s takes it away", text.Printable(dir), text.Quote(text.PathArgument(dir)))
	case err != nil:
		return "", err
	case len(entries) > 0:
		return "", fail.Usage("%s: is not empty, and what it holds would be hidden", text.Printable(dir))
	}
	real, err := infile.RealPath(dir)
	if err != nil {
		return "", err
	}
	for _, ref := range refs {
		info, err := os.Stat(ref)
		if err != nil || !info.IsDir() {
			continue
		}
		if of, err := infile.RealPath(ref); err == nil && (of == real || within(of, real)) {
			return "", fail.Usage("%s: is in %s, which is to be mounted there", text.Printable(dir), text.Printable(ref))
		}
	}
	return real, nil
}

// mountSource is what mount and df show as the source.
func mountSource(refs []string) string {
	const most = 200
	s := text.Printable(strings.Join(refs, " "))
	if len(s) > most {
		s = s[:most] + "..."
	}
	return s
}

// mountLog is where a mount says what goes wrong: the terminal until it is
// ready and, in the foreground, later; a file.
type mountLog struct {
	*app // for all but warnings

	mu   sync.Mutex
	file *os.File
	mute bool // nobody reads stderr any more
	said map[string]time.Time
}

func (a *app) mountLog(opt *mountOptions) (*mountLog, error) {
	l := &mountLog{app: a, said: map[string]time.Time{}}
	if opt.logFile == "" {
		return l, nil
	}
	if !infile.Exists(opt.logFile) {
		if err := outfile.RefuseNew(opt.logFile); err != nil {
			return nil, err
		}
	}
	var err error
	l.file, err = os.OpenFile(opt.logFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	return l, err
}

func (l *mountLog) close() {
	if l.file != nil {
		_ = l.file.Close() // a log
	}
}

// What is said again within a minute says nothing new: a program may read a
// broken file a thousand times a second.
const (
	sayAgain = time.Minute
	maxSaid  = 10000
)

// Warnf says something, unless it was said within the last minute.
func (l *mountLog) Warnf(format string, args ...any) {
	line := text.OneLine(fmt.Sprintf(format, args...))
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if last, ok := l.said[line]; ok && now.Sub(last) < sayAgain {
		return
	}
	if len(l.said) >= maxSaid {
		clear(l.said)
	}
	l.said[line] = now
	if l.file != nil {
		fmt.Fprintf(l.file, "%s %s\n", now.UTC().Format(time.RFC3339), line)
	}
	if !l.mute {
		l.app.Warnf("%s", line)
	}
}
