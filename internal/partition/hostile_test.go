package partition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"cbt/sparse"
)

// putMBR writes records at sector 512*at: entries of kind, start and length.
func putMBR(b []byte, at int, entries ...[3]uint32) {
	p := b[at*512:]
	for i, e := range entries {
		q := p[446+16*i:]
		q[4] = byte(e[0])
		binary.LittleEndian.PutUint32(q[8:], e[1])
		binary.LittleEndian.PutUint32(q[12:], e[2])
	}
	p[510], p[511] = 0x55, 0xaa
}

// numbers are what is found of a disk, as number:start+sectors.
func numbers(t *Table) (all []string) {
	for _, p := range t.Partitions {
		all = append(all, fmt.Sprintf("%d:%d+%d", p.Number, p.Off/512, p.Size/512))
	}
	return all
}

// chains are chains of logical partitions that no tool would make.
var chains = map[string]struct {
	put  func(b []byte)
	want []string
	warn string
}{
	"itself": {func(b []byte) {
		putMBR(b, 100, [3]uint32{0x83, 1, 5}, [3]uint32{5, 0, 10})
	}, []string{"5:101+5"}, "comes back to sector 100"},
	"two in a ring": {func(b []byte) {
		putMBR(b, 100, [3]uint32{0x83, 1, 5}, [3]uint32{5, 50, 10})
		putMBR(b, 150, [3]uint32{0x83, 1, 6}, [3]uint32{5, 0, 10})
	}, []string{"5:101+5", "6:151+6"}, "comes back to sector 100"},
	"no record": {func(b []byte) {
		putMBR(b, 100, [3]uint32{0x83, 1, 5}, [3]uint32{5, 50, 10})
	}, []string{"5:101+5"}, "ends at sector 150, which is no extended boot record"},
	"behind the end": {func(b []byte) {
		putMBR(b, 100, [3]uint32{0x83, 1, 5}, [3]uint32{5, math.MaxUint32, 10})
	}, []string{"5:101+5"}, "not inside the file"},
	"empty records": {func(b []byte) {
		for i := range 300 {
			putMBR(b, 100+i, [3]uint32{0, 0, 0}, [3]uint32{5, uint32(i + 1), 1})
		}
	}, nil, "too long at sector 200"},
	"an empty record between": {func(b []byte) {
		putMBR(b, 100, [3]uint32{0x83, 1, 5}, [3]uint32{5, 50, 10})
		putMBR(b, 150, [3]uint32{0, 0, 0}, [3]uint32{5, 60, 10})
		putMBR(b, 160, [3]uint32{0x8e, 1, 7})
	}, []string{"5:101+5", "6:161+7"}, ""},
	"link first": {func(b []byte) {
		putMBR(b, 100, [3]uint32{5, 50, 10}, [3]uint32{0x83, 1, 5})
		putMBR(b, 150, [3]uint32{0x8e, 1, 7})
	}, []string{"5:101+5", "6:151+7"}, ""},
	"four in one record": {func(b []byte) {
		putMBR(b, 100, [3]uint32{0x83, 1, 5}, [3]uint32{0x83, 10, 5}, [3]uint32{0x83, 20, 5}, [3]uint32{0x83, 5000, 5})
	}, []string{"5:101+5", "6:110+5", "7:120+5"}, ""},
	"too many": {func(b []byte) {
		for i := range 300 {
			putMBR(b, 100+2*i, [3]uint32{0x83, 1, 1}, [3]uint32{5, uint32(2 * (i + 1)), 2})
		}
	}, nil, "partition 256 is left out"},
	"outside the disk": {func(b []byte) {
		putMBR(b, 100, [3]uint32{0x83, 1, math.MaxUint32}, [3]uint32{5, 50, 10})
		putMBR(b, 150, [3]uint32{0x83, math.MaxUint32, 5})
	}, []string{"5:101+1899"}, "partition 5 is cut there; partition 6 is behind it"},
}

// chainDisk is a disk whose extended partition is the 1,000 sectors from 100 on.
func chainDisk(put func(b []byte)) []byte {
	b := make([]byte, 2000*512)
	putMBR(b, 0, [3]uint32{0x0f, 100, 1000})
	put(b)
	return b
}

func TestChains(t *testing.T) {
	for name, c := range chains {
		b := chainDisk(c.put)
		got, err := read(b, Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if have := numbers(got); c.want != nil && !slices.Equal(have, c.want) || len(have) > 251 {
			t.Errorf("%s: %q, want %q", name, have, c.want)
		}
		if said := strings.Join(got.Warnings, "\n"); c.warn == "" && said != "" || !strings.Contains(said, c.warn) || len(got.Warnings) > 21 {
			t.Errorf("%s: warnings %q", name, said)
		}
	}
}

// TestManyExtended: four extended partitions share one ring of 500.
func TestManyExtended(t *testing.T) {
	b := make([]byte, 2000*512)
	e := [3]uint32{5, 100, 1000}
	putMBR(b, 0, e, e, e, e)
	for i := range 500 {
		putMBR(b, 100+i, [3]uint32{0x83, 1, 1}, [3]uint32{5, uint32((i + 1) % 500), 2})
	}
	got, err := read(b, Options{})
	if err != nil || len(got.Partitions) != 251 || len(got.Warnings) > 21 {
		t.Errorf("%v, %v", got, err)
	}
}

// gptDisk is a small disk whose GPT is only as good as it has to be: 4 entries,
// copies at both ends.
func gptDisk() []byte {
	b := make([]byte, 100*512)
	putMBR(b, 0, [3]uint32{0xee, 1, 99})
	le := binary.LittleEndian
	for _, c := range [][3]int{{1, 99, 2}, {99, 1, 98}} {
		entries := b[c[2]*512:]
		for i := range 4 {
			e := entries[128*i:]
			copy(e, "\x79\xd3\xd6\xe6\x07\xf5\xc2\x44\xa2\x3c\x23\x8f\x2a\x3d\xf9\x28")
			le.PutUint64(e[32:], uint64(10+10*i))
			le.PutUint64(e[40:], uint64(19+10*i))
		}
		h := b[c[0]*512:]
		copy(h, "EFI PART\x00\x00\x01\x00\x5c")
		le.PutUint64(h[24:], uint64(c[0]))
		le.PutUint64(h[32:], uint64(c[1]))
		le.PutUint64(h[72:], uint64(c[2]))
		le.PutUint32(h[80:], 4)
		le.PutUint32(h[84:], 128)
		sign(b, c[0])
	}
	return b
}

// sign corrects the checksums of the copy whose header is in sector at.
func sign(b []byte, at int) {
	h := b[at*512:][:512]
	le := binary.LittleEndian
	from, n := le.Uint64(h[72:]), uint64(le.Uint32(h[80:]))*uint64(le.Uint32(h[84:]))
	if from < 100 && from*512+n <= uint64(len(b)) {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(b[from*512:][:n]))
	}
	le.PutUint32(h[16:], 0)
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:min(max(le.Uint32(h[12:]), 20), 512)]))
}

func TestHostileGPT(t *testing.T) {
	if got, err := read(gptDisk(), Options{}); err != nil || len(got.Warnings) > 0 || !slices.Equal(numbers(got), []string{"1:10+10", "2:20+10", "3:30+10", "4:40+10"}) || !got.Partitions[0].IsLVM() {
		t.Fatal(got, err)
	}
	le := binary.LittleEndian
	for _, c := range []struct {
		name string
		at   int // in the header
		v    uint64
		n    int // bytes
		text string
	}{
		{"no entries", 80, 0, 4, ""},
		{"2^32-1 entries", 80, math.MaxUint32, 4, "NumberOfPartitionEntries 0xffffffff"},
		{"4 MiB of entries", 80, 32768, 4, "not inside the file"},
		{"more than 4 MiB of entries", 80, 32769, 4, "NumberOfPartitionEntries 0x8001"},
		{"entries of 0 bytes", 84, 0, 4, "SizeOfPartitionEntry 0x0"},
		{"entries of 7 bytes", 84, 7, 4, "SizeOfPartitionEntry 0x7"},
		{"entries of 129 bytes", 84, 129, 4, "SizeOfPartitionEntry 0x81"},
		{"entries of 2^31 bytes", 84, 1 << 31, 4, "NumberOfPartitionEntries"},
		{"entries of 256 bytes", 84, 256, 4, ""},
		{"entries behind the end", 72, 100, 8, "PartitionEntryLBA 0x64"},
		{"entries at 2^64-1", 72, math.MaxUint64, 8, "PartitionEntryLBA 0xffffffffffffffff"},
		{"entries at 2^55", 72, 1 << 55, 8, "PartitionEntryLBA"},
		{"header of 91 bytes", 12, 91, 4, "HeaderSize 0x5b"},
		{"header of 0 bytes", 12, 0, 4, "HeaderSize 0x0"},
		{"header of 2^32-1 bytes", 12, math.MaxUint32, 4, "HeaderSize 0xffffffff"},
		{"header of 512 bytes", 12, 512, 4, ""},
		{"header elsewhere", 24, 2, 8, "MyLBA 0x2"},
	} {
		b := gptDisk()
		for _, at := range []int{1, 99} {
			h := b[at*512:]
			if c.n == 4 {
				le.PutUint32(h[c.at:], uint32(c.v))
			} else {
				le.PutUint64(h[c.at:], c.v)
			}
			sign(b, at)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := read(b, Options{SectorSize: 512})
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: allocates %d bytes", c.name, n)
		}
		var bad *sparse.FormatError
		switch {
		case c.text == "" && err != nil, c.text != "" && !errors.As(err, &bad):
			t.Errorf("%s: %v, %v", c.name, got, err)
		case c.text != "" && (got != nil || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, c := range []struct {
		first, last uint64
		want        string
		warn        string
	}{
		{50, 49, "", "partition 1 begins at sector 50 and ends at 49"},
		{100, 120, "", "partition 1 starts at sector 100, behind the end of the disk of 100"},
		{50, 120, "1:50+50", "partition 1 of 71 sectors at 50 is cut"},
		{50, math.MaxUint64, "1:50+50", "is cut"},
		{0, math.MaxUint64, "", "all sectors that there could be"},
		{math.MaxUint64, math.MaxUint64, "", "behind the end"},
		{1 << 63, 1<<63 + 5, "", "behind the end"},
		{0, 0, "1:0+1", ""},
	} {
		b := gptDisk()
		le.PutUint64(b[2*512+32:], c.first)
		le.PutUint64(b[2*512+40:], c.last)
		sign(b, 1)
		got, err := read(b, Options{})
		if err != nil {
			t.Fatal(err)
		}
		have := ""
		if got.Partitions[0].Number == 1 {
			have = numbers(got)[0]
		}
		if said := strings.Join(got.Warnings, "\n"); have != c.want || !strings.Contains(said, c.warn) || c.warn == "" && said != "" {
			t.Errorf("%d to %d: %q, warnings %q", c.first, c.last, have, said)
		}
	}
}

// TestCut cuts disks at every sector and around: what is named is where it was,
// or cut where the disk ends.
func TestCut(t *testing.T) {
	mbr := make([]byte, 60*512)
	putMBR(mbr, 0, [3]uint32{0x83, 1, 9}, [3]uint32{5, 20, 30})
	putMBR(mbr, 20, [3]uint32{0x8e, 1, 5}, [3]uint32{5, 10, 10})
	putMBR(mbr, 30, [3]uint32{0x83, 1, 7})
	for _, whole := range [][]byte{gptDisk(), mbr} {
		want, err := read(whole, Options{})
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for size := range whole {
			got, err := read(bytes.Clone(whole[:size]), Options{SectorSize: 512})
			var bad *sparse.FormatError
			if err != nil {
				if got != nil || !errors.As(err, &bad) && !errors.Is(err, ErrNoTable) {
					t.Fatalf("cut at %d: %v, %v", size, got, err)
				}
				continue
			}
			for _, p := range got.Partitions {
				i := slices.IndexFunc(want.Partitions, func(q Partition) bool { return q.Number == p.Number })
				if i < 0 || want.Partitions[i].Off != p.Off || p.Size <= 0 || p.Off+p.Size > int64(size) ||
					p.Size != want.Partitions[i].Size && p.Off+p.Size != int64(size/512*512) {
					t.Fatalf("cut at %d: %+v", size, p)
				}
				found++
			}
		}
		if found < 1000 {
			t.Errorf("%d partitions in %d cuts", found, len(whole))
		}
	}
}

// One thing that is wrong is one warning, however much of a table it concerns.
func TestOneWarningForOneThing(t *testing.T) {
	// An extended partition of four logical ones, on a disk that was cut.
	b := make([]byte, 2000*512)
	putMBR(b, 0, [3]uint32{0x83, 10, 50}, [3]uint32{5, 100, 1900})
	for i := range 4 {
		at := uint32(300 * i)
		link := [3]uint32{5, at + 300, 300}
		if i == 3 {
			link = [3]uint32{}
		}
		putMBR(b, int(100+at), [3]uint32{0x83, 1, 1200 - at}, link)
	}
	for end, want := range map[int]string{
		2000: "",
		1200: "the disk ends at sector 1200, before its partitions do: partitions 5, 6, 7, 8 are cut there",
		900: "the disk ends at sector 900, before its partitions do: partitions 5, 6, 7 are cut there; " +
			"more of the logical partitions may be, too",
		401: "the disk ends at sector 401, before its partitions do: partition 5 is cut there; partition 6 is behind it; " +
			"more of the logical partitions may be, too",
	} {
		got, err := read(b[:end*512], Options{})
		if err != nil {
			t.Fatal(err)
		}
		if said := strings.Join(got.Warnings, "\n"); said != want {
			t.Errorf("a disk of %d sectors: warnings %q, want %q", end, said, want)
		}
	}
	// Four extended partitions with one chain that bites its tail.
	e := [3]uint32{5, 100, 1000}
	putMBR(b, 0, e, e, e, e)
	putMBR(b, 100, [3]uint32{0x83, 1, 1}, [3]uint32{5, 0, 2})
	got, err := read(b, Options{})
	if err != nil || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "comes back") {
		t.Errorf("four in a ring: %v, %q", err, got.Warnings)
	}
}
