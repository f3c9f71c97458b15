package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cbt/cbt"
	"cbt/internal/audit"
	"cbt/internal/fail"
	"cbt/internal/outfile"
	"cbt/internal/record"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/qcow2/vmstate"
)

// domainLimit is how large domain XML may be.
const domainLimit = 16 << 20

// What --state-format says.
const (
	stateAsStream  = "stream"
	stateAsLibvirt = "libvirt"
	stateAsMapped  = "mapped-ram"
)

// stateTarget is the file that a machine's state is restored to. It gets its
// name after the disks have theirs.
type stateTarget struct {
	path    string
	format  string
	domain  *vmstate.Libvirt // of a save image
	file    *audit.OutFile
	machine *machine
}

func (opt *restoreOptions) checkState() error {
	switch opt.stateFormat {
	case stateAsStream, stateAsLibvirt, stateAsMapped:
	default:
		return fail.Usage("--state-format %s: must be stream, libvirt or mapped-ram", text.Printable(opt.stateFormat))
	}
	switch {
	case opt.state == "" && (opt.stateFormat != stateAsStream || opt.domain != ""):
		return fail.Usage("--state FILE says where the machine's state goes")
	case opt.domain != "" && opt.stateFormat != stateAsLibvirt:
		return fail.Usage("--domain: only save images have one: --state-format libvirt")
	case opt.state == stdinName:
		return fail.Usage("--state - is no file (./- is)")
	}
	return nil
}

// openStateTarget prepares the file for the state after d, which the delta must
// have. Nothing is written yet.
func (o *opener) openStateTarget(d *store.File, targets []namedTarget, opt *restoreOptions) (_ *stateTarget, err error) {
	t := &stateTarget{path: opt.state, format: opt.stateFormat}
	if t.machine, err = o.machineAfter(d.Name, &chainRef{d, opt.chain}); err != nil {
		return nil, err
	}
	if t.machine == nil {
		return nil, fail.Usage("%s: has no machine state: it was made without RAM", d.Name)
	}
	if t.domain, err = t.machine.domain(o.reads.Audit, opt); err != nil {
		return nil, err
	}
	if err := o.refuseSources(append(slices.Clip(targets), namedTarget{path: t.path})); err != nil {
		return nil, err
	}
	if err := refuseStateName(t.path); err != nil {
		return nil, err
	}
	replace := opt.overwrite || opt.inPlace
	if real, err := filepath.EvalSymlinks(t.path); err == nil {
		t.path = real
	}
	switch st, err := os.Stat(t.path); {
	case err == nil && !st.Mode().IsRegular():
		return nil, fail.Usage("%s: is no regular file: a state is written to a file", t.path)
	case err == nil && !replace:
		return nil, fail.Usage("%s: exists already: --overwrite replaces it", t.path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if err := o.refuseOtherContent(t.path); err != nil {
		return nil, err
	}
	if opt.dryRun {
		err = o.reads.Audit.Probe(t.path, replace)
	} else {
		t.file, err = o.reads.Audit.Create(t.path, replace)
	}
	if errors.Is(err, fs.ErrExist) {
		err = fail.Usage("%s: exists already: --overwrite replaces it", t.path)
	}
	return t, err
}

// refuseStateName refuses names of what a state is not.
func refuseStateName(path string) error {
	if strings.HasSuffix(path, record.Suffix) {
		return fail.Usage("--state %s: is named like the record of a target", path)
	}
	if format := containers[strings.ToLower(filepath.Ext(path))]; format != "" && format != formatState {
		return fail.Usage("--state %s: is named like a %s", path, format)
	}
	return nil
}

// refuseOtherContent refuses to replace what is no state: it may be a delta of
// a chain, or a disk.
func (o *opener) refuseOtherContent(path string) error {
	f, err := openFile(path, &o.reads, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	found, err := sniff(f, f.Info.Size)
	if err == nil && found != formatState && f.Info.Size > 0 {
		err = fail.Usage("--state %s: holds no machine state: a state replaces nothing else", path)
	}
	return err
}

// domain is what a save image has in front: that of the state, or of the XML
// that the user names.
func (m *machine) domain(u *audit.Recorder, opt *restoreOptions) (*vmstate.Libvirt, error) {
	switch {
	case opt.stateFormat != stateAsLibvirt:
		return nil, nil
	case opt.domain == "" && m.Libvirt == nil:
		return nil, fail.Usage("--state-format libvirt: the state is of no save image: --domain FILE names the domain's XML (virsh dumpxml)")
	case opt.domain == "":
		return m.Libvirt, nil
	}
	text, err := u.ReadFile("text", opt.domain, domainLimit)
	if err != nil {
		return nil, err
	}
	l, err := vmstate.NewLibvirt(string(text), m.Libvirt == nil || m.Libvirt.WasRunning)
	return l, refError(opt.domain, err)
}

// layers are the chains of all streams of the state.
func (t *stateTarget) layers() (all [][]cbt.Layer) {
	for _, s := range t.machine.streams {
		all = append(all, s.layers)
	}
	return all
}

// write writes the state, without giving it its name.
func (t *stateTarget) write(ctx context.Context, a *app) (int64, error) {
	total := int64(0)
	for _, b := range t.machine.Blocks {
		total += b.Size()
	}
	p := a.Start("restoring RAM", total)
	defer p.Finish()
	out := &stateWriter{ctx: ctx, file: t.file.File.File, progress: p.Set}
	var err error
	switch t.format {
	case stateAsMapped:
		err = t.machine.WriteMapped(out, t.machine.ram)
	case stateAsLibvirt:
		err = t.machine.WriteLibvirt(out, t.domain, t.machine.ram)
	default:
		err = t.machine.WriteStream(out, t.machine.ram)
	}
	if err == nil {
		err = t.file.Sync()
	}
	return out.written, refError(t.path, err)
}

func (t *stateTarget) abort() {
	if t != nil && t.file != nil {
		t.file.Abort()
	}
}

// stateWriter counts what is written, and ends with ctx.
type stateWriter struct {
	ctx      context.Context
	file     io.WriterAt
	written  int64
	progress func(int64)
}

func (w *stateWriter) Write(p []byte) (int, error) { return w.WriteAt(p, w.written) }

func (w *stateWriter) WriteAt(p []byte, off int64) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	n, err := w.file.WriteAt(p, off)
	w.written += int64(n)
	w.progress(w.written)
	return n, err
}

// withoutMemory says that RAM was left out.
func (a *app) withoutMemory(d *store.File) {
	if d.Stream(store.StateStream) >= 0 {
		a.Notef("%s: has the machine's RAM too: without --state FILE the machine will wake up without memory", d.Name)
	}
}

// describe is the end of what restore says.
func (t *stateTarget) describe(written int64) string {
	if t == nil {
		return ""
	}
	how := "-incoming " + text.Quote("exec:cat "+t.path)
	switch t.format {
	case stateAsLibvirt:
		how = "virsh restore"
	case stateAsMapped:
		how = "-incoming " + text.Quote("file:"+t.path) + " and mapped-ram"
	}
	machine := ""
	if t.machine.MachineType != "" {
		machine = ", a " + text.Printable(t.machine.MachineType)
	}
	return fmt.Sprintf("; the machine's state%s, in %s (%s), for %s", machine, text.Printable(t.path), text.Size(written), how)
}

// removeOld removes the state that is to be replaced. Beside another disk, which
// a crash could leave, it would be worse than none.
func (t *stateTarget) removeOld() error {
	err := t.file.Audit.Remove(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return outfile.SyncDir(filepath.Dir(t.path))
}
