package fuzz

import (
	"bytes"
	"encoding/binary"
	"testing"

	"cbt/internal/fsys"
)

// FuzzFileSystems looks for file systems on any bytes. It ends, without a panic,
// and says something of each that it names.
func FuzzFileSystems(f *testing.F) {
	ext := make([]byte, 4096)
	copy(ext[1024+0x38:], "\x53\xef\x01")
	ext[1024+0x5c], ext[1024+0x60] = 4, 4
	f.Add(ext)

	xfs := make([]byte, 64<<10)
	copy(xfs, "XFSB")
	be, le := binary.BigEndian, binary.LittleEndian
	be.PutUint32(xfs[4:], 512)
	be.PutUint64(xfs[48:], 16) // the log
	be.PutUint32(xfs[84:], 128)
	be.PutUint32(xfs[96:], 80)
	xfs[124] = 7
	record := xfs[16*512:]
	be.PutUint32(record, 0xfeedbabe)
	for at, word := range map[int]uint32{4: 1, 8: 2, 12: 64, 28: 0, 40: 2, 300: 1, 320: 32 << 10} {
		be.PutUint32(record[at:], word)
	}
	be.PutUint32(record[512:], 1)
	be.PutUint32(record[512+4:], 24)
	le.PutUint16(record[512+12:], 0x123c)
	le.PutUint16(record[512+14:], 1)
	record[512+36+9] = 0x20
	f.Add(xfs)

	ntfs := make([]byte, 32<<10)
	copy(ntfs[3:], "NTFS    ")
	ntfs[0x0c], ntfs[0x0d], ntfs[0x30], ntfs[0x40] = 2, 1, 4, 0xf6
	file := ntfs[4*512+2*1024:]
	copy(file, "FILE\x30\x00\x03\x00")
	file[0x14] = 0x40
	copy(file[0x40:], "\x80\x00\x00\x00\x30\x00\x00\x00\x01")
	file[0x40+0x20] = 0x28
	copy(file[0x40+0x28:], "\x11\x10\x14")
	page := ntfs[0x14*512:]
	copy(page, "RSTR\x1e\x00\x09\x00")
	page[0x18] = 0x30
	f.Add(ntfs)

	f.Fuzz(func(t *testing.T, disk []byte) {
		list, err := fsys.Find(bytes.NewReader(disk), int64(len(disk)))
		if err != nil {
			t.Fatal(err) // a reader in memory does not fail
		}
		for _, s := range list {
			if s.Kind == "" || s.State == "" || s.Why == "" || s.Name() == "" {
				t.Fatalf("%+v", s)
			}
		}
	})
}
