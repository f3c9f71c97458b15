package hostlvm

import (
	"errors"
	"fmt"

	"cbt/internal/dm"
)

// PoolRef says which thin pool is meant, and what the text of its group says
// of it. Ids may have LVM's dashes.
type PoolRef struct {
	Name          string // "vg0/pool", for messages
	VG            string // id of the group
	Pool          string // ids of the volumes: the pool, its metadata, its data
	Metadata      string
	Data          string
	TransactionID uint64
	Messages      bool  // the segment holds messages: an LVM command is, or was, at work
	ChunkSize     int64 // bytes
}

// Shares of the metadata in use, in percent.
const (
	warnMetadata   = 80
	refuseMetadata = 90
)

// Pool is a thin pool in use on this host, whose metadata can be read while
// nothing changes them: see Snapshot. Its methods may be called at the same
// time from several goroutines.
type Pool struct {
	Warnings []string // for the user, one line each

	ref    PoolRef
	host   *Host
	device dm.Device
}

// OpenPool opens a pool in use. It is refused with an error that wraps
//
//   - ErrInactive if it has no device: its metadata is read from the group's disks;
//   - ErrBusy while an LVM command works on it;
//   - *TransactionError if its transaction id is not that of the text: reading
//     that again helps if LVM was at work;
//   - ErrUnhealthy if it failed, needs checking or is read-only, or if more than
//     90 % of its metadata are in use.
func (h *Host) OpenPool(ref PoolRef) (*Pool, error) {
	p, err := h.openPool(ref)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref.Name, err)
	}
	return p, nil
}

func (h *Host) openPool(ref PoolRef) (*Pool, error) {
	device, err := h.layer(ref.VG, ref.Pool, dm.LayerPool)
	if errors.Is(err, ErrInactive) {
		// thin_check, lvconvert --repair and their like have parts of an
		// inactive pool open, and may write them.
		for lv, layer := range map[string]string{ref.Metadata: dm.LayerMeta, ref.Data: dm.LayerData} {
			if _, part := h.layer(ref.VG, lv, layer); part == nil {
				return nil, fmt.Errorf("its %s is active, the pool is not: %w", layer, ErrBusy)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	p := &Pool{ref: ref, host: h, device: device}
	status, err := p.Status()
	if err != nil {
		return nil, err
	}
	if err := checkTransaction(status, ref); err != nil {
		return nil, err
	}
	if p.Warnings, err = checkStatus(status); err != nil {
		return nil, err
	}
	return p, p.checkTable()
}

// checkTable makes sure that the metadata and the data in the pool's own table
// are those of the text.
func (p *Pool) checkTable() error {
	targets, err := p.host.ctl.Table(p.device)
	if err != nil {
		return err
	}
	if len(targets) != 1 || targets[0].Type != "thin-pool" {
		return fmt.Errorf("%s is no thin pool", p.device)
	}
	table, err := dm.ParsePoolTable(targets[0].Params)
	if err != nil {
		return err
	}
	if table.ChunkSectors > 1<<40 || int64(table.ChunkSectors)*512 != p.ref.ChunkSize {
		return fmt.Errorf("chunks of %d sectors in use, of %d bytes in the volume group's metadata", table.ChunkSectors, p.ref.ChunkSize)
	}
	for _, part := range []struct {
		lv, layer string
		number    dm.Number
	}{
		{p.ref.Metadata, dm.LayerMeta, table.Metadata},
		{p.ref.Data, dm.LayerData, table.Data},
	} {
		d, err := p.host.layer(p.ref.VG, part.lv, part.layer)
		if err != nil {
			return fmt.Errorf("its %s: %w", part.layer, err)
		}
		if d.Number() != part.number {
			return fmt.Errorf("its %s in use is device %v, that of the volume group's metadata %s (%v)", part.layer, part.number, d, d.Number())
		}
	}
	return nil
}

// Metadata opens the device that holds the pool's metadata, as large as it is
// now.
func (p *Pool) Metadata() (*Direct, error) {
	return p.host.Volume(p.ref.VG, p.ref.Metadata, dm.LayerMeta)
}

// Name is the reference's.
func (p *Pool) Name() string { return p.ref.Name }

// Status is what the kernel says of the pool now.
func (p *Pool) Status() (dm.PoolStatus, error) { return poolStatus(p.host.ctl, p.device) }

func poolStatus(ctl *dm.Control, d dm.Device) (dm.PoolStatus, error) {
	targets, err := ctl.Status(d)
	if err != nil {
		return dm.PoolStatus{}, err
	}
	if len(targets) != 1 || targets[0].Type != "thin-pool" {
		return dm.PoolStatus{}, fmt.Errorf("%s is no thin pool", d)
	}
	return dm.ParsePoolStatus(targets[0].Params)
}

// TransactionError says that a pool and the text of its group are of different
// transactions.
type TransactionError struct {
	Kernel, Text uint64
	Messages     bool // the text says that an LVM command has not finished
}

func (e *TransactionError) Error() string {
	if e.Kernel+1 == e.Text && e.Messages {
		return fmt.Sprintf("an LVM command has not finished: transaction %d in use, %d in the volume group's metadata; "+
			"if none runs, activating the pool again completes it", e.Kernel, e.Text)
	}
	return fmt.Sprintf("transaction %d in use, %d in the volume group's metadata", e.Kernel, e.Text)
}

// Is makes it an ErrBusy while an LVM command is at work, else an ErrUnhealthy.
func (e *TransactionError) Is(target error) bool {
	if e.Kernel+1 == e.Text && e.Messages {
		return target == ErrBusy
	}
	return target == ErrUnhealthy
}

func checkTransaction(s dm.PoolStatus, ref PoolRef) error {
	if s.Failed || s.TransactionID == ref.TransactionID {
		return nil // checkStatus tells of failure
	}
	return &TransactionError{s.TransactionID, ref.TransactionID, ref.Messages}
}

// outOfDataSpace is the mode of a pool that has no chunk left.
const outOfDataSpace = "out_of_data_space"

// usable says whether the pool is healthy enough for a metadata snapshot.
func usable(s dm.PoolStatus) error {
	switch {
	case s.Failed:
		return fmt.Errorf("the pool has failed, the kernel log says why: %w", ErrUnhealthy)
	case s.NeedsCheck:
		return fmt.Errorf("the pool needs checking (lvconvert --repair): %w", ErrUnhealthy)
	case s.Mode == outOfDataSpace:
		// Only what would need a new chunk fails: the metadata are sound, and the
		// kernel takes messages as ever.
		return nil
	case s.Mode != "rw":
		return fmt.Errorf("the pool is read-only, the kernel log says why: %w", ErrUnhealthy)
	}
	return nil
}

// checkStatus says whether a run may begin. A snapshot keeps blocks from being
// freed, and a pool without free metadata goes read-only for all its volumes.
func checkStatus(s dm.PoolStatus) (warnings []string, err error) {
	if err := usable(s); err != nil {
		return nil, err
	}
	if s.MetadataTotal == 0 {
		return nil, fmt.Errorf("the pool has no metadata: %w", ErrUnhealthy)
	}
	percent := 100 * float64(s.MetadataUsed) / float64(s.MetadataTotal)
	used := fmt.Sprintf("%.1f %% of the pool's metadata are in use (%d of %d blocks)", percent, s.MetadataUsed, s.MetadataTotal)
	switch {
	case percent > refuseMetadata:
		return nil, fmt.Errorf("%s, a snapshot of it could take the rest: extend it first (lvextend --poolmetadatasize): %w", used, ErrUnhealthy)
	case percent > warnMetadata:
		warnings = append(warnings, used)
	}
	if s.Mode == outOfDataSpace {
		warnings = append(warnings, fmt.Sprintf("the pool is out of data space (%d of %d chunks in use): what its volumes wrote last may be lost, "+
			"snapshots that were taken before are whole", s.DataUsed, s.DataTotal))
	}
	return warnings, nil
}
