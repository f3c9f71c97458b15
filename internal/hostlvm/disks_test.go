//go:build !cbtlive

package hostlvm

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

const testID = "0123456789abcdefghijABCDEFGHIJ!#"

func label(sector uint64, header uint32) []byte {
	b := make([]byte, 512)
	copy(b, "LABELONE")
	binary.LittleEndian.PutUint64(b[8:], sector)
	binary.LittleEndian.PutUint32(b[20:], header)
	copy(b[24:], "LVM2 001")
	if header <= 480 {
		copy(b[header:], testID)
	}
	return b
}

func TestLabelID(t *testing.T) {
	at := func(sector int, b []byte) []byte {
		return append(append(make([]byte, 512*sector), b...), make([]byte, 2048)...)
	}
	for _, c := range []struct {
		what, want string
		disk       []byte
	}{
		{"sector 0", testID, at(0, label(0, 32))},
		{"sector 3", testID, at(3, label(3, 480))},
		{"sector 4", "", at(4, label(4, 32))},
		{"another sector's number", "", at(1, label(2, 32))},
		{"header past the sector", "", at(1, label(1, 481))},
		{"header far away", "", at(1, label(1, 1<<32-1))},
		{"other type", "", at(1, bytes.Replace(label(1, 32), []byte("LVM2"), []byte("LVM1"), 1))},
		{"small disk", testID, label(0, 32)},
		{"smaller disk", "", label(0, 32)[:511]},
		{"nothing", "", nil},
	} {
		if got, err := labelID(bytes.NewReader(c.disk), int64(len(c.disk))); got != c.want || err != nil {
			t.Errorf("%s: %q, %v", c.what, got, err)
		}
	}
	if _, err := labelID(bytes.NewReader(nil), 4096); err == nil {
		t.Error("a disk that cannot be read has no label")
	}
}

func TestRaidMember(t *testing.T) {
	const size = 1<<20 + 4096 + 512
	le := []byte{0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0}
	be := []byte{0xa9, 0x2b, 0x4e, 0xfc, 0, 0, 0, 0}
	for _, c := range []struct {
		what  string
		at    int
		magic []byte
		want  bool
	}{
		{"none", 0, nil, false},
		{"0.90", 1<<20 - 64<<10, []byte{0xfc, 0x4e, 0x2b, 0xa9, 0, 0, 0, 0}, true},
		{"0.90, big endian", 1<<20 - 64<<10, be, true},
		{"1.0", 1<<20 - 4096, le, true},
		{"1.1", 0, le, true},
		{"1.2", 4096, le, true},
		{"elsewhere", 8192, le, false},
		{"version 9", 0, []byte{0xfc, 0x4e, 0x2b, 0xa9, 9, 0, 0, 0}, false},
	} {
		disk := make([]byte, size)
		copy(disk[c.at:], c.magic)
		if got, err := raidMember(bytes.NewReader(disk), size); got != c.want || err != nil {
			t.Errorf("%s: %v, %v", c.what, got, err)
		}
	}
	if got, err := raidMember(strings.NewReader("tiny"), 4); got || err != nil {
		t.Errorf("tiny: %v, %v", got, err)
	}
}
