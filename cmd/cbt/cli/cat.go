package cli

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/store"
	"cbt/sparse"
)

type catOptions struct {
	source openerOptions
	ref    refOptions
	chain  store.ChainOptions
	offset sizeValue
	length sizeValue
}

func newCatCommand(a *app) *cobra.Command {
	opt := &catOptions{}
	c := &cobra.Command{
		Use:   "cat REF",
		Short: "print the bytes of an image",
		Long: `cat writes the content of an image to stdout: all of it, holes as zeros, or the
range that --offset and --length say.`,
		Example: `  cbt cat disk.qcow2@monday > monday.raw
  cbt cat --length 512 disk.qcow2 | file -`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.WrongBaseCode, fail.BusyCode),
		Args:        wantArgs("REF"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.cat(c.Context(), args[0], opt)
		},
	}
	flags := c.Flags()
	opt.source.addFlags(flags)
	opt.ref.addFlags(flags, "", "REF")
	addChainFlag(&opt.chain, flags)
	flags.Var(&opt.offset, "offset", "start at this byte (64K, 1G, ...)")
	flags.Var(&opt.length, "length", "print this many bytes (default: up to the end)")
	return c
}

func (a *app) cat(ctx context.Context, ref string, opt *catOptions) error {
	if a.StdoutTerminal {
		return fail.Usage("cat: stdout is a terminal, which the bytes of an image could command: redirect it")
	}
	o, err := a.newOpener(opt.source)
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	o.chainFrom(opt.chain)
	src, err := o.open(ctx, ref, opt.ref)
	if err != nil {
		return err
	}
	defer src.Close()
	off, n, err := rangeOf(src, opt.offset, opt.length)
	if err != nil {
		return err
	}
	if err := refuseUnknown(ctx, src, off, n); err != nil {
		return err
	}
	bar := a.Start("cat", n)
	err = sparse.WriteRange(ctx, a.Stdout, src.View, off, n, bar.Add)
	bar.Finish()
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	if err := src.Recheck(); err != nil {
		return err
	}
	return a.syncStdout()
}

// rangeOf is the part of src that --offset and --length name.
func rangeOf(src *source, offset, length sizeValue) (off, n int64, err error) {
	size := src.View.Size()
	if offset.n > size {
		return 0, 0, fail.Usage("%s: --offset %d is past its end at %d", src.Ref, offset.n, size)
	}
	n = size - offset.n
	if length.set {
		if length.n > n {
			return 0, 0, fail.Usage("%s: --length %d from offset %d on is past its end at %d", src.Ref, length.n, offset.n, size)
		}
		n = length.n
	}
	return offset.n, n, nil
}

// syncStdout makes what was written to stdout stay, if that is a file.
func (a *app) syncStdout() error {
	s, ok := a.Stdout.(*stickyWriter)
	if !ok {
		return nil
	}
	f, ok := s.w.(interface{ Sync() error })
	if !ok {
		return nil
	}
	err := f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.EROFS) {
		return nil // a pipe or a device that has nothing to sync
	}
	return err
}
