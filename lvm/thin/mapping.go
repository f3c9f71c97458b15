package thin

import "fmt"

// mapping is the value of an entry in a leaf of a mapping tree: the data block in the high 40 bits,
// the pool's time when it was mapped in the low 24 (pack_block_time in dm-thin-metadata.c).
type mapping uint64

func (m mapping) block() uint64 { return uint64(m) >> timeBits }
func (m mapping) time() uint32  { return uint32(m) & maxTime }

// verifyMappings checks the values of a leaf of a mapping tree.
func verifyMappings(n node, block uint64, t *tree, dataBlocks uint64, time uint32) error {
	var largest mapping
	var latest uint32
	for rest := n.values()[:8*n.len()]; len(rest) >= 8; rest = rest[8:] {
		m := mapping(le.Uint64(rest))
		largest, latest = max(largest, m), max(latest, m.time())
	}
	if n.len() == 0 || largest.block() < dataBlocks && latest <= time {
		return nil
	}
	for i := range n.len() {
		m := mapping(n.u64(i))
		fault := func(format string, args ...any) error {
			return formatError(t.node, block, fmt.Sprintf("value of key %#x", n.key(i)), uint64(m), fmt.Sprintf(format, args...))
		}
		if m.block() >= dataBlocks {
			return fault("data block %d is not among the pool's %d", m.block(), dataBlocks)
		}
		if m.time() > time {
			return fault("mapped at time %d, and the pool's time is %d", m.time(), time)
		}
	}
	return nil
}

// detailsSize is the size of a device's record in bytes.
const detailsSize = 24

// decodeDetails decodes a device's record (struct disk_device_details in
// dm-thin-metadata.c).
func decodeDetails(id uint32, b []byte) Device {
	return Device{
		ID:              id,
		MappedBlocks:    le.Uint64(b),
		TransactionID:   le.Uint64(b[8:]),
		CreationTime:    le.Uint32(b[16:]),
		SnapshottedTime: le.Uint32(b[20:]),
	}
}

// Validate checks the record against the pool's time.
func (d *Device) Validate(time uint32) error {
	name := fmt.Sprintf("thin device %d", d.ID)
	if d.CreationTime > time {
		return formatError(name, noBlock, "creation_time", d.CreationTime, fmt.Sprintf("the pool's time is %d", time))
	}
	if d.SnapshottedTime > time {
		return formatError(name, noBlock, "snapshotted_time", d.SnapshottedTime, fmt.Sprintf("the pool's time is %d", time))
	}
	return nil
}

// noBlock stands for the block of something that is in no block.
const noBlock = 1<<64 - 1
