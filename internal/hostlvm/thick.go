package hostlvm

import (
	"errors"
	"fmt"

	"cbt/internal/dm"
)

// ThickSnapshot is a thick snapshot in use on this host. Its content is read
// through its own device, where the kernel puts it together; the exception
// table, read from the COW device, says only which chunks are the snapshot's
// own. Content and COW may be read from several goroutines.
type ThickSnapshot struct {
	Content, COW *Direct
	ChunkSize    int64 // bytes
	ReadOnly     bool  // nobody can write the snapshot; LVM makes them writable

	host   *Host
	device dm.Device
	params string // of its table
}

// OpenThickSnapshot opens a thick snapshot in use. Its volume is the one that
// holds the exception store, which has the name that users see; name is for
// messages. The error wraps ErrInactive if it has no device, ErrUnhealthy if
// the kernel has invalidated it, and ErrBusy while it is being merged into its
// origin.
func (h *Host) OpenThickSnapshot(name, vg, lv string) (*ThickSnapshot, error) {
	s, err := h.openThickSnapshot(vg, lv)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func (h *Host) openThickSnapshot(vg, lv string) (_ *ThickSnapshot, err error) {
	device, err := h.layer(vg, lv, dm.LayerNone)
	if err != nil {
		return nil, err
	}
	s := &ThickSnapshot{ReadOnly: device.ReadOnly, host: h, device: device}
	table, params, err := s.table()
	if err != nil {
		return nil, err
	}
	if !table.Persistent {
		return nil, errors.New("the snapshot's exceptions are in memory only")
	}
	if table.ChunkSectors == 0 || table.ChunkSectors > 1<<31 {
		return nil, fmt.Errorf("snapshot chunks of %d sectors", table.ChunkSectors)
	}
	s.params, s.ChunkSize = params, int64(table.ChunkSectors)*512
	cow, err := h.layer(vg, lv, dm.LayerCOW)
	if err != nil {
		return nil, fmt.Errorf("its exception store: %w", err)
	}
	if cow.Number() != table.COW {
		return nil, fmt.Errorf("its exception store in use is device %v, not %s (%v)", table.COW, cow, cow.Number())
	}
	if err := s.healthy(); err != nil {
		return nil, err
	}
	if s.COW, err = h.open(cow); err != nil {
		return nil, err
	}
	if s.Content, err = h.open(device); err != nil {
		return nil, err
	}
	return s, nil
}

// Recheck asks the kernel again, after the last read: the snapshot must still
// be valid and the same. A snapshot that overflows reads as errors from then
// on, but its table may have been read before.
func (s *ThickSnapshot) Recheck() error {
	_, params, err := s.table()
	if err != nil {
		return err
	}
	if params != s.params {
		return fmt.Errorf("%s changed while it was read: table %q, then %q", s.device, s.params, params)
	}
	return s.healthy()
}

func (s *ThickSnapshot) table() (dm.SnapshotTable, string, error) {
	targets, err := s.host.ctl.Table(s.device)
	switch {
	case err != nil:
		return dm.SnapshotTable{}, "", err
	case len(targets) == 1 && targets[0].Type == "snapshot-merge":
		return dm.SnapshotTable{}, "", fmt.Errorf("%s is being merged: %w", s.device, ErrBusy)
	case len(targets) != 1 || targets[0].Type != "snapshot":
		return dm.SnapshotTable{}, "", fmt.Errorf("%s is no snapshot", s.device)
	}
	table, err := dm.ParseSnapshotTable(targets[0].Params)
	return table, targets[0].Params, err
}

func (s *ThickSnapshot) healthy() error {
	targets, err := s.host.ctl.Status(s.device)
	if err != nil {
		return err
	}
	if len(targets) != 1 {
		return fmt.Errorf("%s has %d targets", s.device, len(targets))
	}
	status, err := dm.ParseSnapshotStatus(targets[0].Params)
	if err != nil {
		return err
	}
	if status.Broken != "" {
		return fmt.Errorf("%s is lost (%s): %w", s.device, status.Broken, ErrUnhealthy)
	}
	return nil
}
