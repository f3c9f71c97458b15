package thin

import (
	"errors"
	"fmt"
)

// Device is one device of a pool: its record (struct disk_device_details in dm-thin-metadata.c) and
// the place of its mapping tree. The metadata do not contain the size of the device.
//
// Times count the snapshots taken in the pool. Two reads that give equal Fingerprints saw the same
// mappings.
type Device struct {
	ID              uint32 // 24 bits
	MappedBlocks    uint64 // number of data blocks
	TransactionID   uint64 // of the pool when the device was created
	CreationTime    uint32 // the pool's time when it was created
	SnapshottedTime uint32 // when it was last the origin of a snapshot, or created
	Root            uint64 // metadata block of the root of its mapping tree
}

// ErrNoDevice means that a pool has no device with that ID.
var ErrNoDevice = errors.New("no such thin device")

// Device returns the device with that ID. The error is ErrNoDevice if there is none, and a
// *sparse.FormatError if only one of the two trees has it.
func (m *Metadata) Device(id uint32) (Device, error) {
	top, i, err := m.lookup(m.super.MappingRoot, roots, roots.tree(0), uint64(id))
	if err != nil {
		return Device{}, err
	}
	records, j, err := m.lookup(m.super.DetailsRoot, details, details.tree(0), uint64(id))
	if err != nil {
		return Device{}, err
	}
	switch {
	case i < 0 && j < 0:
		return Device{}, fmt.Errorf("%w: %d", ErrNoDevice, id)
	case i < 0:
		return Device{}, oneTreeOnly(uint64(id), "details", "device")
	case j < 0:
		return Device{}, oneTreeOnly(uint64(id), "device", "details")
	}
	d := decodeDetails(id, records.record(j))
	d.Root = top.child(i)
	return d, m.validate(&d)
}

func oneTreeOnly(id uint64, in, notIn string) error {
	return formatError(fmt.Sprintf("thin device %d", id), noBlock, "", nil, fmt.Sprintf("is in the %s tree and not in the %s tree", in, notIn))
}

// validate checks a device's record and root.
func (m *Metadata) validate(d *Device) error {
	name := fmt.Sprintf("thin device %d", d.ID)
	if d.ID > maxDeviceID {
		return formatError(name, noBlock, "id", d.ID, "more than 24 bits")
	}
	if d.Root == 0 || d.Root >= m.dev.blocks {
		return formatError(name, noBlock, "root of the mapping tree", d.Root, fmt.Sprintf("not one of the metadata blocks 1 to %d", m.dev.blocks-1))
	}
	return d.Validate(m.super.Time)
}

// Devices returns all devices, sorted by ID. Memory is 40 bytes for each.
func (m *Metadata) Devices() ([]Device, error) {
	var all []Device
	records := m.walk(m.super.DetailsRoot, details, details.tree(0), 0, 0, 1<<64-1)
	defer records.close()
	err := records.entries(func(n node, i, end int) bool {
		for ; i < end; i++ {
			if n.key(i) > maxDeviceID {
				all = append(all, Device{ID: 1<<32 - 1})
				return false
			}
			all = append(all, decodeDetails(uint32(n.key(i)), n.record(i)))
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	next := 0
	var wrong error
	top := m.walk(m.super.MappingRoot, roots, roots.tree(0), 0, 0, 1<<64-1)
	defer top.close()
	err = top.entries(func(n node, i, end int) bool {
		for ; i < end && wrong == nil; i++ {
			switch id := n.key(i); {
			case next < len(all) && uint64(all[next].ID) < id:
				wrong = oneTreeOnly(uint64(all[next].ID), "details", "device")
			case next == len(all) || uint64(all[next].ID) > id:
				wrong = oneTreeOnly(id, "device", "details")
			default:
				all[next].Root = n.child(i)
				wrong = m.validate(&all[next])
				next++
			}
		}
		return wrong == nil
	})
	switch {
	case err != nil:
		return nil, err
	case wrong != nil:
		return nil, wrong
	case next < len(all):
		return nil, oneTreeOnly(uint64(all[next].ID), "details", "device")
	}
	return all, nil
}

// Fingerprint is equal for two reads of a device if nobody changed its mappings in between. It is
// comparable with ==. Any change of a mapping copies the root of the tree. Taking a snapshot of the
// device does not change the fingerprint, and neither does writing in place to blocks that no
// snapshot shares.
type Fingerprint struct {
	ID            uint32
	MappedBlocks  uint64
	TransactionID uint64
	CreationTime  uint32
	Root          uint64
	RootChecksum  uint32 // of the root's block, over its number and all entries
}

func (f Fingerprint) String() string {
	return fmt.Sprintf("%d-%d-%d-%d-%d-%08x", f.ID, f.TransactionID, f.CreationTime, f.MappedBlocks, f.Root, f.RootChecksum)
}

// Fingerprint returns the device's fingerprint. It reads the root of the mapping tree unless that
// is in memory.
func (m *Metadata) Fingerprint(d Device) (Fingerprint, error) {
	t := mappings.tree(d.ID)
	n, err := m.node(d.Root, mappings, t)
	if err != nil {
		return Fingerprint{}, err
	}
	return Fingerprint{d.ID, d.MappedBlocks, d.TransactionID, d.CreationTime, d.Root, le.Uint32(n)}, nil
}
