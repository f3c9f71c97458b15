package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"cbt/internal/partition"
)

// FuzzPartitions reads any bytes as a disk with a partition table. A GPT's
// checksums are corrected, or nothing behind them would be met.
func FuzzPartitions(f *testing.F) {
	mbr := make([]byte, 64*512)
	record := func(at int, entries ...byte) {
		for i := 0; i+3 <= len(entries); i += 3 {
			e := mbr[at*512+446+i/3*16:]
			e[4], e[8], e[12] = entries[i], entries[i+1], entries[i+2]
		}
		mbr[at*512+510], mbr[at*512+511] = 0x55, 0xaa
	}
	record(0, 0x83, 1, 9, 5, 20, 30, 0x8e, 50, 10)
	record(20, 0x8e, 1, 5, 5, 10, 10)
	record(30, 0x83, 1, 7, 5, 0, 3)
	f.Add(mbr, false)
	gpt := make([]byte, 40*512)
	copy(gpt, mbr[:512])
	gpt[446+4] = 0xee
	for _, at := range [][2]int{{1, 2}, {39, 38}} {
		h := gpt[at[0]*512:]
		copy(h, "EFI PART\x00\x00\x01\x00\x5c")
		h[24], h[32], h[72], h[80], h[84] = byte(at[0]), byte(40-at[0]), byte(at[1]), 4, 128
		for i := range 3 {
			e := gpt[at[1]*512+i*128:]
			e[0], e[32], e[40], e[56] = 7, byte(10+5*i), byte(14+5*i), 'x'
		}
	}
	f.Add(gpt, true)
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		b = bytes.Clone(b)
		if sign {
			for at := 512; at+512 <= len(b); at += max(512, len(b)-1024) / 512 * 512 {
				signGPT(b, b[at:at+512])
			}
		}
		for _, sector := range []int64{0, 512, 4096} {
			table, err := partition.Read(bytes.NewReader(b), int64(len(b)), partition.Options{SectorSize: sector})
			if (table == nil) == (err == nil) {
				t.Fatalf("%v, %v", table, err)
			}
			if err != nil {
				if !errors.Is(err, partition.ErrNoTable) {
					wantFormat(t, err)
				}
				continue
			}
			if len(table.Partitions) > 255 || len(table.Warnings) > 30 {
				t.Fatalf("%d partitions, %d warnings", len(table.Partitions), len(table.Warnings))
			}
			for _, p := range table.Partitions {
				if p.Number <= 0 || p.Off < 0 || p.Size <= 0 || p.Size > int64(len(b))-p.Off || p.Off%table.SectorSize != 0 {
					t.Fatalf("%+v in %d bytes", p, len(b))
				}
			}
		}
	})
}

func signGPT(disk, h []byte) {
	le := binary.LittleEndian
	from, n := le.Uint64(h[72:]), uint64(le.Uint32(h[80:]))*uint64(le.Uint32(h[84:]))
	if size := uint64(len(disk)); from < size/512 && n <= size && from*512+n <= size {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(disk[from*512:][:n]))
	}
	le.PutUint32(h[16:], 0)
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:min(max(le.Uint32(h[12:]), 20), 512)]))
}
