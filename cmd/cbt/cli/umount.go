package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/fuse"
	"cbt/internal/infile"
	"cbt/internal/store"
)

func newUmountCommand(a *app) *cobra.Command {
	lazy := false
	c := &cobra.Command{
		Use:   "umount DIR",
		Short: "end what cbt mount began",
		Long: `umount ends the mount at DIR, also one whose process is gone, and returns when that
has ended. What cbt did not mount is left alone. While a file or directory there is in
use it fails; with --lazy it takes DIR away at once, and the mount ends when nobody uses
it any more.`,
		Example:     `  cbt umount /mnt`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.BusyCode),
		Args:        wantArgs("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			at, err := filepath.Abs(args[0]) // as mount prints it
			if err == nil {
				err = umount(c.Context(), args[0], lazy)
			}
			if err != nil {
				return err
			}
			return a.result(mountedAt{at, false})
		},
	}
	c.Flags().BoolVar(&lazy, "lazy", false, "also while it is in use")
	return c
}

func umount(ctx context.Context, dir string, lazy bool) error {
	err := fuse.Unmount(ctx, dir, lazy)
	switch {
	case errors.Is(err, fuse.ErrBusy):
		return fail.Busy("%w: a file there is open, or a program runs there (--lazy takes it away all the same)", err)
	case errors.Is(err, fuse.ErrNoProgram):
		return fmt.Errorf("%w: it is in the package fuse3", err)
	case errors.Is(err, fuse.ErrNotMounted) && !infile.Exists(dir):
		return store.DirError(dir, fs.ErrNotExist)
	case errors.Is(err, fuse.ErrNotMounted):
		return fail.Usage("%w", err)
	}
	return err
}
