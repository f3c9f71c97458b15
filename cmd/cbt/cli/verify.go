package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"cbt/cbt"
	"cbt/internal/audit"
	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/sparse"
)

type verifyOptions struct {
	source  openerOptions
	ref     refOptions
	chain   store.ChainOptions
	against string
	subset  subset

	salvage   bool
	salvageTo string
	out       string
}

func newVerifyCommand(a *app) *cobra.Command {
	opt := &verifyOptions{}
	c := &cobra.Command{
		Use:   "verify DELTA|DIR...",
		Short: "read every byte of deltas and check every checksum and link",
		Long: `verify reads deltas from their first byte to their last and checks all that the
format has checks for. Of a directory it takes all .cbt files, and every delta
in it must have those that it builds on (exit 4 if one has not) and replace what
they hold; where several deltas lead to one point, they must give the same
image. A single delta is looked at alone: what it builds on is not read, so it
may be sound and yet not be restorable. It may be - for standard input.

--subset K/N reads one part of N of the deltas of a directory, always the same
for one K: N nights read everything. Which deltas build on which is looked at
for all.

--salvage lists what is whole in one damaged delta: the header, the index, the
end and any part between may be gone. -o FILE writes its only stream as a sparse
raw file, --salvage-to DIR each of its streams; FILE.map has, with the keys of
cbt map --json, what of it is there, what the delta does not touch, and what is
lost. Deltas that it builds on are not read. The exit code is 3 if something is
damaged.

With --against REF the state after the one given delta is compared with an
image, byte for byte.`,
		Example: `  cbt verify backups/
  cbt verify --subset 1/7 backups/
  cbt verify --salvage-to rescued/ backups/@2026-11-24
  cbt verify --against disk.qcow2@tuesday backups/@latest`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.FindingsCode, fail.WrongBaseCode, fail.BusyCode),
		Args:        wantArgs("DELTA|DIR..."),
		RunE: func(c *cobra.Command, args []string) error {
			return a.verify(c.Context(), args, opt)
		},
	}
	flags := c.Flags()
	flags.StringVar(&opt.against, "against", "", "compare the state after the delta with the image `REF`")
	flags.Var(&opt.subset, "subset", "of a directory, read part `K/N` only")
	flags.BoolVar(&opt.salvage, "salvage", false, "list what is whole in one damaged delta")
	flags.StringVarP(&opt.out, "output", "o", "", "write the only stream that --salvage finds to `FILE`, and FILE.map")
	flags.StringVar(&opt.salvageTo, "salvage-to", "", "write each stream that --salvage finds into `DIR`")
	opt.source.addFlags(flags)
	opt.ref.addFlags(flags, "", "the image of --against")
	addChainFlag(&opt.chain, flags)
	return c
}

// verified is one line of the result.
type verified struct {
	Delta  string `json:"delta"`
	OK     bool   `json:"ok"`
	Unread bool   `json:"unreadable,omitempty"` // no damage: it could not be read
	ID     string `json:"id,omitempty"`
	Size   int64  `json:"size,omitempty"`
	Error  string `json:"error,omitempty"`
	Parent string `json:"missing-parent,omitempty"`
	Part   bool   `json:"other-part,omitempty"` // of --subset: not read now
}

func (a *app) verify(ctx context.Context, args []string, opt *verifyOptions) error {
	switch {
	case opt.against != "" && len(args) != 1:
		return fail.Usage("--against compares one delta, got %d", len(args))
	case opt.against != "" && opt.subset.of > 0:
		return fail.Usage("--against and --subset exclude each other")
	case opt.salvage || opt.salvageTo != "" || opt.out != "":
		if len(args) != 1 || opt.against != "" || opt.subset.of > 0 || opt.out != "" && opt.salvageTo != "" {
			return fail.Usage("--salvage takes one delta, and either -o or --salvage-to")
		}
		args, err := a.resolveAll(args)
		if err != nil {
			return err
		}
		return a.salvage(ctx, args[0], opt)
	}
	args, err := a.resolveAll(args)
	if err != nil {
		return err
	}
	var list []verified
	for _, arg := range args {
		st, err := os.Stat(arg)
		switch {
		case arg == stdinName:
			err = a.verifyStdin(ctx, &list)
		case errors.Is(err, fs.ErrNotExist) && !strings.EqualFold(filepath.Ext(arg), store.Suffix):
			err = store.DirError(arg, err)
		case err != nil:
		case st.IsDir():
			err = a.verifyDir(ctx, arg, &list, opt.subset)
		case opt.subset.of > 0:
			return fail.Usage("--subset takes part of a directory, and %s is none", text.Printable(arg))
		default:
			if err = a.refuseImage(arg); err == nil {
				err = a.verifyFile(ctx, arg, &list, opt.against != "")
			}
		}
		if err != nil {
			return err
		}
	}
	if a.json {
		if err := writeJSON(a.Stdout, list); err != nil {
			return err
		}
	}
	bad, unread, orphans := 0, 0, 0
	for _, v := range list {
		switch {
		case v.Unread:
			unread++
		case !v.OK:
			bad++
		case v.Parent != "":
			orphans++
		}
	}
	switch {
	case bad > 0:
		return fail.Findings("%d of %s damaged", bad, text.Count(len(list), "delta"))
	case unread > 0:
		return fmt.Errorf("%d of %s could not be read", unread, text.Count(len(list), "delta"))
	case orphans > 0:
		return fail.WrongBase("%d of %s without the deltas they build on", orphans, text.Count(len(list), "delta"))
	case opt.against != "":
		return a.verifyAgainst(ctx, args[0], opt)
	}
	return nil
}

// say prints one result and keeps it. The next delta is looked at whatever is
// wrong with this one.
func (a *app) say(list *[]verified, name string, sum cbt.Summary, err error) error {
	v := verified{Delta: name, OK: err == nil}
	if err == nil {
		v.ID, v.Size = sum.ID.String(), sum.Size
	} else {
		var format *sparse.FormatError
		var unknown *cbt.UnknownFeatureError
		v.Unread = !errors.As(err, &format) && !errors.As(err, &unknown)
		v.Error = err.Error()
	}
	*list = append(*list, v)
	switch {
	case a.json, v.OK && a.quiet: // what is wrong is said all the same
		return nil
	case v.OK:
		_, err = fmt.Fprintf(a.Stdout, "%s: ok, %s, sha256 %s\n", text.Printable(name), text.Size(v.Size), v.ID)
	case v.Unread:
		_, err = fmt.Fprintf(a.Stdout, "%s: NOT READ: %s\n", text.Printable(name), text.OneLine(v.Error))
	default:
		_, err = fmt.Fprintf(a.Stdout, "%s: DAMAGED: %s\n", text.Printable(name), text.OneLine(v.Error))
	}
	return err
}

// refuseImage refuses what is plainly something else than a delta: that it is no
// whole one would say nothing.
func (a *app) refuseImage(path string) error {
	if strings.EqualFold(filepath.Ext(path), store.Suffix) {
		return nil
	}
	reads := audit.Reading{Audit: a.audit}
	f, err := openFile(path, &reads, nil)
	if err != nil {
		return nil // verifyFile says so
	}
	defer f.Close()
	return notDelta(f.Input, false)
}

func (a *app) verifyStdin(ctx context.Context, list *[]verified) error {
	h, sum, err := cbt.Verify(ctx, &infile.Interruptible{Ctx: ctx, R: a.Stdin}, cbt.VerifyOptions{})
	if ctx.Err() != nil {
		return err
	}
	if err == nil {
		a.sayAlone("standard input", "", &h)
	}
	return a.say(list, "standard input", sum, err)
}

// sayAlone says that a delta is not all that a restore takes: what it builds on was
// not read.
func (a *app) sayAlone(name, dir string, h *cbt.Header) {
	if allFull(h) {
		return
	}
	str := text.Printable(name) + ": looked at alone, without the deltas that it builds on"
	if dir != "" {
		str += ": " + text.CommandLine(text.Quote, "cbt", "verify", text.PathArgument(dir)) + " reads these too"
	}
	a.Notef("%s", str)
}

// verifyFile verifies one delta. chained says that what it builds on is read too.
func (a *app) verifyFile(ctx context.Context, path string, list *[]verified, chained bool) error {
	o, err := a.newOpener(openerOptions{})
	if err != nil {
		return err
	}
	defer o.Close()
	f, err := openFile(path, &o.reads, nil)
	if err != nil {
		return a.say(list, path, cbt.Summary{}, err)
	}
	defer f.Close()
	p := a.Start("verifying", f.Info.Size)
	h, sum, err := cbt.Verify(ctx, f, cbt.VerifyOptions{Progress: p.Set})
	p.Finish()
	if ctx.Err() != nil {
		return err
	}
	if err == nil && !chained {
		a.sayAlone(path, filepath.Dir(path), &h)
	}
	return a.say(list, path, sum, err)
}

// verifyAgainst compares the state after a delta with an image.
func (a *app) verifyAgainst(ctx context.Context, path string, opt *verifyOptions) error {
	if path == stdinName {
		return fail.Usage("--against needs a delta in a file")
	}
	o, err := a.newOpener(opt.source)
	if err != nil {
		return err
	}
	defer o.Close()
	state, err := o.openChain(path, path, refOptions{}, opt.chain)
	if err != nil {
		return err
	}
	src, err := o.open(ctx, opt.against, opt.ref)
	if err != nil {
		return err
	}
	defer src.Close()
	size := max(state.View.Size(), src.View.Size())
	p := a.Start("comparing", size)
	defer p.Finish()
	var differ, first int64
	for e, err := range sparse.Compare(state.View, src.View, 0, size) {
		if err != nil {
			return err
		}
		if differ == 0 {
			first = e.Off
		}
		differ += e.Len
		p.Set(e.End())
	}
	p.Finish()
	if err := src.Recheck(); err != nil {
		return err
	}
	switch {
	case differ > 0:
		return fail.Findings("%s differs from the state after %s in %s, first at offset %d", opt.against, path, text.Size(differ), first)
	case state.View.Size() != src.View.Size():
		return fail.Findings("%s has %d bytes, the state after %s %d", opt.against, src.View.Size(), path, state.View.Size())
	}
	a.Notef("%s is the state after %s, byte for byte", opt.against, path)
	return ctx.Err()
}
