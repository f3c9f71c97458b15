package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/hostlvm"
	"cbt/internal/text"
)

func newLVMCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "lvm",
		Short: "look after thin pools of this host",
		Long: `lvm has what cbt does with the thin pools of this host besides reading volumes of
theirs. diff, cat and the others take lvm:VG/LV.`,
		Example:     `  cbt lvm release-metadata-snap vg0/pool`,
		Annotations: exits(fail.Done, fail.UsageCode),
		Args:        cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			return unknownCommand(c, args)
		},
	}
	c.AddCommand(newReleaseCommand(a))
	for _, sub := range c.Commands() {
		a.guard(sub)
	}
	return c
}

func newReleaseCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "release-metadata-snap VG/POOL",
		Short: "release a metadata snapshot that a killed run left behind",
		Long: `release-metadata-snap releases the metadata snapshot of a thin pool of this host.
A pool has one at most. cbt takes it while it looks at volumes in use and gives
it back at every end but a SIGKILL or a power cut; while one is held, space that
the pool frees stays in use, and no other run can take one.

It does nothing while another run of cbt works on the pool. That no other
program needs the snapshot (thin_delta, thin_dump and their like) only you know.`,
		Example:     `  cbt lvm release-metadata-snap vg0/pool`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.BusyCode),
		Args:        wantArgs("VG/POOL"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.releaseMetadataSnap(c.Context(), args[0])
		},
	}
}

func (a *app) releaseMetadataSnap(ctx context.Context, pool string) error {
	r, ok := splitVolume(strings.TrimPrefix(strings.TrimPrefix(pool, lvmPrefix), "/dev/"))
	if !ok {
		return fail.Usage("%s: must be VG/POOL", text.Printable(pool))
	}
	o, err := a.newOpener(openerOptions{})
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	h, err := o.openHost(ctx)
	if err != nil {
		return err
	}
	_, lv, err := h.find(ctx, r, o.Warnf)
	if err != nil {
		return fmt.Errorf("%s: %w", text.Printable(pool), err)
	}
	if lv.Type() != "thin-pool" {
		return fail.Usage("%s: is no thin pool", lv.FullName())
	}
	ref, err := hostlvm.RefOf(lv)
	if err != nil {
		return err
	}
	root, err := h.ReleaseMetadataSnap(ctx, ref)
	if errors.Is(err, hostlvm.ErrNotHeld) {
		a.Notef("%s: holds no metadata snapshot", lv.FullName())
		return a.result(released{Pool: lv.FullName()})
	}
	if err != nil {
		return hostError(lv.FullName(), err)
	}
	a.Notef("%s: released the metadata snapshot at block %d", lv.FullName(), root)
	return a.result(released{lv.FullName(), true, &root})
}
