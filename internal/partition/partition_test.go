package partition

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cbt/internal/testtool"
	"cbt/sparse"
	"cbt/sparse/sparsetest"
)

func read(b []byte, opt Options) (*Table, error) {
	return Read(bytes.NewReader(b), int64(len(b)), opt)
}

// made is a disk of so many bytes that fdisk has put a table on.
func made(t testing.TB, size int64, sector int, script string) (name string, b []byte) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	in := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(in, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	// Only fdisk can be told the size of sectors; "I" reads a script of sfdisk's.
	fdisk := testtool.Need(t, "fdisk")
	out := testtool.Run(t, "sh", "-c", fmt.Sprintf("printf 'I\\n%s\\nw\\n' | %s -b %d %s 2>&1", in, fdisk, sector, name))
	if !strings.Contains(out, "Script successfully applied") {
		t.Fatal(out)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return name, b
}

// fdisk is the partitions that fdisk sees, extended ones left out.
func fdisk(t testing.TB, name string, sector int64) []Partition {
	t.Helper()
	columns := "Device,Start,Sectors,Id"
	out := testtool.Run(t, "fdisk", "-b", strconv.FormatInt(sector, 10), "-l", name)
	if strings.Contains(out, "Disklabel type: gpt") {
		columns = "Device,Start,Sectors,Type-UUID,Name"
	}
	out = testtool.Run(t, "fdisk", "-b", strconv.FormatInt(sector, 10), "-l", "-o", columns, name)
	var all []Partition
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(\d+) +(\d+) +(\d+) +(\S+) ?(.*)$`).FindAllStringSubmatch(out, -1) {
		var n [3]int64
		for i := range n {
			n[i], _ = strconv.ParseInt(m[i+1], 10, 64)
		}
		kind := m[4]
		if kind == "5" || kind == "f" || kind == "85" {
			continue
		}
		if len(kind) == 1 {
			kind = "0" + kind
		}
		all = append(all, Partition{int(n[0]), n[1] * sector, n[2] * sector, kind, m[5]})
	}
	return all
}

func wantPartitions(t *testing.T, got *Table, err error, want []Partition) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Partitions, want) {
		t.Errorf("%s: %v\nwant %v", got.Kind, got.Partitions, want)
	}
}

const lvmGUID = "E6D6D379-F507-44C2-A23C-238F2A3DF928"

// scripts are tables as people have them.
var scripts = map[string]struct {
	sector int
	script string
}{
	"gpt":           {512, "label: gpt\nsize=2MiB,type=U,name=\"EFI\"\nsize=3MiB\nsize=4MiB,type=" + lvmGUID + ",name=\"LVM, Größe 𝄞\"\n"},
	"gpt 4096":      {4096, "label: gpt\nsize=2MiB,type=U\nsize=3MiB\nsize=4MiB,type=" + lvmGUID + "\n"},
	"gpt with gaps": {512, "label: gpt\ntable-length: 256\n200: start=2048,size=2048,type=" + lvmGUID + "\n3: start=8192,size=10\n"},
	"gpt empty":     {512, "label: gpt\n"},
	"gpt small":     {512, "label: gpt\ntable-length: 4\nsize=1MiB\n"},
	"mbr":           {512, "label: dos\nsize=2MiB,type=83,bootable\nsize=3MiB,type=8e\n"},
	"mbr empty":     {512, "label: dos\n"},
	"mbr last slot": {512, "label: dos\n4: start=2048,size=2048,type=8e\n"},
	"mbr logical": {512, "label: dos\nsize=2MiB,type=83\nsize=20MiB,type=5\nsize=3MiB,type=8e\n" +
		"5: size=1MiB,type=82\nsize=2MiB,type=8e\nsize=3MiB,type=83\nsize=1MiB,type=8e\n"},
	"mbr logical lba": {512, "label: dos\nsize=20MiB,type=f\n5: size=1MiB,type=8e\n6: size=2MiB,type=7\n"},
	"mbr no logical":  {512, "label: dos\nsize=20MiB,type=f\n"},
}

func TestFdisk(t *testing.T) {
	for title, c := range scripts {
		t.Run(title, func(t *testing.T) {
			name, b := made(t, 40<<20, c.sector, c.script)
			want := fdisk(t, name, int64(c.sector))
			if strings.Count(title, "empty")+strings.Count(title, "no logical") == 0 && len(want) == 0 {
				t.Fatal("fdisk sees no partition")
			}
			for _, opt := range []Options{{}, {int64(c.sector)}} {
				got, err := read(b, opt)
				wantPartitions(t, got, err, want)
				if len(got.Warnings) > 0 || got.SectorSize != int64(c.sector) {
					t.Errorf("sectors of %d bytes, warnings %q", got.SectorSize, got.Warnings)
				}
			}
		})
	}
}

// TestFdisk4096 is for MBR on disks with sectors of 4,096 bytes, which only the
// caller can know.
func TestFdisk4096(t *testing.T) {
	name, b := made(t, 100<<20, 4096, "label: dos\nsize=20MiB,type=83\nsize=60MiB,type=5\n5: size=10MiB,type=8e\n6: size=10MiB,type=83\n")
	got, err := read(b, Options{SectorSize: 4096})
	want := fdisk(t, name, 4096)
	if len(want) != 3 {
		t.Fatal(want)
	}
	wantPartitions(t, got, err, want)
}

// TestOthers: tables that sgdisk and parted make, and what they see in them.
func TestOthers(t *testing.T) {
	testtool.Need(t, "sgdisk")
	testtool.Need(t, "parted")
	name := filepath.Join(t.TempDir(), "disk")
	start := func() {
		t.Helper()
		os.Remove(name)
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, 40<<20); err != nil {
			t.Fatal(err)
		}
	}
	check := func(kind string, numbers ...int) {
		t.Helper()
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(b, Options{})
		if err != nil {
			t.Fatal(err)
		}
		// parted's lines: number, start, end, size, ...
		out := testtool.Run(t, "parted", "-s", "-m", name, "unit", "B", "print")
		var want []string
		for _, m := range regexp.MustCompile(`(?m)^(\d+):(\d+)B:\d+B:(\d+)B:`).FindAllStringSubmatch(out, -1) {
			want = append(want, strings.Join(m[1:], " "))
		}
		slices.SortFunc(want, func(a, b string) int { return cmp.Compare(a[0], b[0]) }) // one digit
		var have []string
		var n []int
		for _, p := range got.Partitions {
			have = append(have, fmt.Sprint(p.Number, p.Off, p.Size))
			n = append(n, p.Number)
		}
		want = slices.DeleteFunc(want, func(s string) bool { return strings.HasPrefix(s, "2 ") && kind == MBR }) // extended
		if got.Kind != kind || !slices.Equal(n, numbers) || !slices.Equal(have, want) || len(got.Warnings) > 0 {
			t.Errorf("%s: %q, want %q; %q\n%s", got.Kind, have, want, got.Warnings, out)
		}
	}
	start()
	testtool.Run(t, "sgdisk", "-n", "1:0:+1M", "-n", "5:0:+2M", "-t", "5:8e00", "-c", "5:data", name)
	check(GPT, 1, 5)
	testtool.Run(t, "sgdisk", "-h", "1:5", name) // hybrid
	check(GPT, 1, 5)
	start()
	testtool.Run(t, "parted", "-s", name, "mklabel", "gpt", "mkpart", "a", "1MiB", "3MiB", "mkpart", "b", "5MiB", "9MiB", "set", "2", "lvm", "on")
	check(GPT, 1, 2)
	start()
	testtool.Run(t, "parted", "-s", name, "mklabel", "msdos", "mkpart", "primary", "1MiB", "3MiB", "mkpart", "extended", "5MiB", "30MiB",
		"mkpart", "logical", "6MiB", "10MiB", "mkpart", "logical", "20MiB", "22MiB", "mkpart", "logical", "12MiB", "14MiB", "set", "5", "lvm", "on")
	check(MBR, 1, 5, 6, 7)
	testtool.Run(t, "parted", "-s", name, "rm", "6")
	check(MBR, 1, 5, 6)
}

// TestBackup: each copy bad in turn.
func TestBackup(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		name, whole := made(t, 40<<20, sector, "label: gpt\nsize=2MiB\nsize=4MiB,type="+lvmGUID+"\n")
		want := fdisk(t, name, int64(sector))
		last := len(whole) - sector
		for title, c := range map[string]struct {
			damage []int // bytes that change
			backup bool  // the backup must be used
			text   string
			bad    bool
		}{
			"primary header":    {damage: []int{sector + 40}, backup: true, text: "HeaderCRC32"},
			"primary entries":   {damage: []int{2*sector + 33}, backup: true, text: "PartitionEntryArrayCRC32"},
			"primary signature": {damage: []int{sector}, backup: true, text: "signature"},
			"backup":            {damage: []int{last + 40}},
			"backup entries":    {damage: []int{last - 100}},
			"both headers":      {damage: []int{sector + 40, last + 40}, bad: true},
			"crosswise":         {damage: []int{sector + 40, last - 16384 + 33}, bad: true},
		} {
			b := bytes.Clone(whole)
			for _, at := range c.damage {
				b[at] ^= 0x40
			}
			got, err := read(b, Options{})
			if c.bad {
				var bad *sparse.FormatError
				if !errors.As(err, &bad) || got != nil || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s: %v, %v", title, got, err)
				}
				continue
			}
			wantPartitions(t, got, err, want)
			if said := strings.Join(got.Warnings, "\n"); (said != "") != c.backup || c.backup && (!strings.Contains(said, "the backup of the partition table is used") || !strings.Contains(said, c.text)) {
				t.Errorf("%d, %s: warnings %q", sector, title, said)
			}
		}
		// A disk that was made larger has its backup in the middle.
		b := append(bytes.Clone(whole), make([]byte, 1<<20)...)
		got, err := read(b, Options{})
		wantPartitions(t, got, err, want)
		b[2*sector+33] ^= 1
		got, err = read(b, Options{})
		wantPartitions(t, got, err, want)
	}
}

// TestNoTable: disks without one, though they look like it.
func TestNoTable(t *testing.T) {
	_, gpt := made(t, 4<<20, 512, "label: gpt\nsize=2MiB\n")
	noMBR := bytes.Clone(gpt)
	clear(noMBR[:512])
	noPrimary := bytes.Clone(noMBR)
	clear(noPrimary[:64<<10])
	boot := make([]byte, 1<<20)
	copy(boot, "\xeb\x3c\x90MSDOS5.0")
	copy(boot[446:], "any code of a boot sector, and so on")
	boot[510], boot[511] = 0x55, 0xaa
	for name, b := range map[string][]byte{
		"empty": nil, "511 bytes": make([]byte, 511), "zeros": make([]byte, 1<<20),
		"GPT without MBR": noMBR, "backup of a former GPT": noPrimary, "boot sector": boot,
	} {
		if got, err := read(b, Options{}); got != nil || !errors.Is(err, ErrNoTable) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := read(gpt, Options{SectorSize: 1024}); err == nil {
		t.Error("sectors of 1024 bytes")
	}
	var bad *sparse.FormatError
	if _, err := read(gpt, Options{SectorSize: 4096}); !errors.As(err, &bad) {
		t.Errorf("other sectors than the GPT has: %v", err)
	}
	if got, err := read(boot[:512], Options{}); got != nil || err == nil {
		t.Error(got)
	}
}

// TestErrors: a disk that cannot be read is no disk without a table.
func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	for title, script := range map[string]string{
		"gpt": "label: gpt\nsize=2MiB\n",
		"mbr": "label: dos\nsize=20MiB,type=f\n5: size=1MiB,type=8e\n6: size=2MiB,type=7\n",
	} {
		_, b := made(t, 40<<20, 512, script)
		reads := 0
		count := readerFunc(func(p []byte, off int64) (int, error) { reads++; return bytes.NewReader(b).ReadAt(p, off) })
		if _, err := Read(count, int64(len(b)), Options{}); err != nil {
			t.Fatal(err)
		}
		for fail := 1; fail <= reads; fail++ {
			n := 0
			r := readerFunc(func(p []byte, off int64) (int, error) {
				if n++; n == fail {
					return 0, broken
				}
				return bytes.NewReader(b).ReadAt(p, off)
			})
			if got, err := Read(r, int64(len(b)), Options{}); got != nil || !errors.Is(err, broken) {
				t.Errorf("%s, read %d of %d: %v, %v", title, fail, reads, got, err)
			}
		}
		if reads < 3 {
			t.Errorf("%s: %d reads", title, reads)
		}
	}
}

type readerFunc func(p []byte, off int64) (int, error)

func (f readerFunc) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

func TestView(t *testing.T) {
	rnd := rand.NewChaCha8([32]byte{1})
	b := make([]byte, 100_000)
	rnd.Read(b)
	clear(b[40_000:60_000])
	holes := sparse.Of(sparse.Extent{Off: 0, Len: 40_000, Kind: sparse.Data}, sparse.Extent{Off: 40_000, Len: 20_000, Kind: sparse.Hole},
		sparse.Extent{Off: 60_000, Len: 40_000, Kind: sparse.Data})
	disk := holed{sparse.Plain(bytes.NewReader(b), int64(len(b))), holes}
	for _, p := range []Partition{{Off: 0, Size: 100_000}, {Off: 512, Size: 50_000}, {Off: 39_999, Size: 20_002}, {Off: 45_000, Size: 100}, {Off: 99_999, Size: 1}} {
		sparsetest.View(t, p.View(disk), b[p.Off:p.Off+p.Size])
	}
}

type holed struct {
	sparse.View
	all sparse.Seq
}

func (h holed) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, h.Size()); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Clip(h.all, off, n)
}
