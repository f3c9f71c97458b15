package dm

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// struct dm_ioctl (include/uapi/linux/dm-ioctl.h), in the byte order of the
// machine.
//
//	0         12        16         20           24          28    32       40  48       176      305   312
//	| version | data    | data     | target     | open      |flags|event,  |dev| name   | uuid   |pad  | data...
//	| 3 x u32 |    size |    start |      count |     count |     |padding |   | [128]  | [129]  |[7]  |
const (
	headerSize = 312
	nameLen    = 128 // DM_NAME_LEN, NUL included
	uuidLen    = 129 // DM_UUID_LEN, NUL included
)

// Flags of dm_ioctl.
const (
	flagReadOnly    = 1 << 0  // DM_READONLY_FLAG
	flagSuspend     = 1 << 1  // DM_SUSPEND_FLAG
	flagStatusTable = 1 << 4  // DM_STATUS_TABLE_FLAG
	flagActive      = 1 << 5  // DM_ACTIVE_PRESENT_FLAG
	flagBufferFull  = 1 << 8  // DM_BUFFER_FULL_FLAG
	flagNoFlush     = 1 << 11 // DM_NOFLUSH_FLAG
	flagDataOut     = 1 << 16 // DM_DATA_OUT_FLAG
)

// Limits of what is asked of the kernel and believed.
const (
	firstBuffer = 8 << 10
	maxBuffer   = 16 << 20
	maxTargets  = 1 << 16
	maxDevices  = 1 << 20 // minors
)

// request is the part of dm_ioctl that callers fill in: name or UUID, never
// both.
type request struct {
	name, uuid string
	flags      uint32
	data       []byte
}

// encode writes the request into buf, which is all of the ioctl's buffer.
func (r request) encode(buf []byte) error {
	switch {
	case len(r.name) >= nameLen:
		return fmt.Errorf("name %q longer than %d bytes", r.name, nameLen-1)
	case len(r.uuid) >= uuidLen:
		return fmt.Errorf("UUID %q longer than %d bytes", r.uuid, uuidLen-1)
	case len(buf) < headerSize+len(r.data) || len(buf) > maxBuffer:
		return fmt.Errorf("buffer of %d bytes", len(buf))
	}
	clear(buf)
	ne := binary.NativeEndian
	ne.PutUint32(buf[0:], 4) // DM_VERSION_MAJOR; a minor of 0 every kernel takes
	ne.PutUint32(buf[12:], uint32(len(buf)))
	ne.PutUint32(buf[16:], headerSize)
	ne.PutUint32(buf[28:], r.flags)
	copy(buf[48:48+nameLen], r.name)
	copy(buf[176:176+uuidLen], r.uuid)
	copy(buf[headerSize:], r.data)
	return nil
}

// header is what the kernel wrote into dm_ioctl.
type header struct {
	targetCount uint32
	openCount   int32
	flags       uint32
	dev         uint64
	name, uuid  string
}

// decodeHeader returns the header and the rest of the buffer, which begins with
// the data. The size that the kernel puts in the header leaves out what aligns
// the last target, and for commands without data the header's own padding.
func decodeHeader(buf []byte) (header, []byte, error) {
	if len(buf) < headerSize {
		return header{}, nil, fmt.Errorf("answer of %d bytes", len(buf))
	}
	ne := binary.NativeEndian
	start := ne.Uint32(buf[16:])
	if start < headerSize || uint64(start) > uint64(len(buf)) {
		return header{}, nil, fmt.Errorf("answer says data at %d of %d bytes", start, len(buf))
	}
	h := header{
		targetCount: ne.Uint32(buf[20:]),
		openCount:   int32(ne.Uint32(buf[24:])),
		flags:       ne.Uint32(buf[28:]),
		dev:         ne.Uint64(buf[40:]),
		name:        cString(buf[48 : 48+nameLen]),
		uuid:        cString(buf[176 : 176+uuidLen]),
	}
	return h, buf[start:], nil
}

func (h header) device() Device {
	n := decodeNumber(h.dev)
	return Device{
		Name: h.name, UUID: h.uuid, Major: n.Major, Minor: n.Minor,
		OpenCount: int(h.openCount), Targets: int(h.targetCount),
		Live:      h.flags&flagActive != 0,
		ReadOnly:  h.flags&flagReadOnly != 0,
		Suspended: h.flags&flagSuspend != 0,
	}
}

// decodeNumber takes the kernel's huge_encode_dev apart.
func decodeNumber(dev uint64) Number {
	return Number{uint32(dev>>8) & 0xfff, uint32(dev&0xff) | uint32(dev>>12)&0xfff00}
}

// decodeNames reads the answer to DM_LIST_DEVICES: struct dm_name_list, a u64
// dev, a u32 distance to the next one (0: the last), and the name. A dev of 0
// in the first one says that there are none.
func decodeNames(data []byte) ([]string, error) {
	const nameOffset = 12
	ne := binary.NativeEndian
	if len(data) < nameOffset || ne.Uint64(data) == 0 {
		return nil, nil
	}
	var names []string
	for at := uint64(0); len(names) < maxDevices; {
		if uint64(len(data)) < at+nameOffset+1 {
			return nil, fmt.Errorf("list of devices ends in entry %d", len(names))
		}
		entry := data[at:]
		names = append(names, cString(entry[nameOffset:min(len(entry), nameOffset+nameLen)]))
		next := ne.Uint32(entry[8:])
		if next == 0 {
			return names, nil
		}
		if next < nameOffset {
			return nil, fmt.Errorf("list of devices: entry %d says that the next is %d bytes on", len(names)-1, next)
		}
		at += uint64(next)
	}
	return nil, fmt.Errorf("list of more than %d devices", maxDevices)
}

// decodeTargets reads the answer to DM_TABLE_STATUS: struct dm_target_spec of
// 40 bytes (u64 start, u64 length, i32 status, u32 next, type[16]) and the
// parameters, a C string. Here next counts from the start of the data.
func decodeTargets(data []byte, n uint32) ([]Target, error) {
	const specSize = 40
	if n > maxTargets {
		return nil, fmt.Errorf("table of %d targets", n)
	}
	ne := binary.NativeEndian
	var targets []Target
	at := uint64(0)
	for range n {
		if uint64(len(data)) < at+specSize {
			return nil, fmt.Errorf("table ends in target %d of %d", len(targets), n)
		}
		spec := data[at:]
		next := uint64(ne.Uint32(spec[20:]))
		if next < at+specSize || next > uint64(len(data)) {
			return nil, fmt.Errorf("target %d says that the next is at %d of %d bytes", len(targets), next, len(data))
		}
		targets = append(targets, Target{
			Start: ne.Uint64(spec), Length: ne.Uint64(spec[8:]),
			Type: cString(spec[24:40]), Params: cString(data[at+specSize : next]),
		})
		at = next
	}
	return targets, nil
}

// encodeMessage is struct dm_target_msg: a u64 sector, the text and a NUL.
func encodeMessage(sector uint64, message string) []byte {
	b := binary.NativeEndian.AppendUint64(nil, sector)
	return append(append(b, message...), 0)
}

// cString is b up to its first NUL, all of it if there is none.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
