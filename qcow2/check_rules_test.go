package qcow2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cbt/internal/sample"
	"cbt/sparse"
)

// rule damages a sound image so that one sentence of the format is broken.
type rule struct {
	image string
	edits []edit
	kind  FaultKind
	cite  string
	off   int64 // where the fault is reported
	cut   int64 // new length of the file; 0: unchanged
}

// edit is a value of the given number of bytes at an offset.
type edit struct {
	off   int64
	width int
	value uint64
}

func set64(off int64, v uint64) []edit { return []edit{{off, 8, v}} }
func set32(off int64, v uint64) []edit { return []edit{{off, 4, v}} }
func set16(off int64, v uint64) []edit { return []edit{{off, 2, v}} }
func set8(off int64, v uint64) []edit  { return []edit{{off, 1, v}} }

// Offsets in the samples.
const (
	v3L1, v3L2, v3RefTable, v3RefBlock = 0x30000, 0x1c0000, 0x10000, 0x20000
	v3Snap0, v3Snap1                   = 0x230000, 0x230048
	v3Length                           = 0x260000
	v2L2                               = 0x1c0000
	subL2                              = 0xc0000 // extl2
	zipL2                              = 0x70000 // zlib
	tinyL2                             = 0x185c00
	dataL2                             = 0x40000 // datafile
	mapExt                             = 0x200   // bitmaps: data of the extension
	mapDir0, mapDir1, mapDir2          = 0x570000, 0x570028, 0x570048
	mapTable0, mapData0                = 0x530000, 0x4d0000
)

var rules = []rule{
	{"v3", set32(100, 108), Corruption, citeHeaderLength, 100, 0},
	{"v3", set8(106, 1), Corruption, citePadding, 105, 0},
	{"v3", set64(88, 1), Corruption, citeAutoBitmaps, 88, 0},
	{"v3", set64(88, 2), Corruption, citeAutoRawFile, 88, 0},
	{"datafile-raw", append(set64(8, 0x300), set32(16, 1)...), Corruption, citeRawBacking, 8, 0},
	{"dirty", nil, Note, citeDirty, 72, 0},
	{"corrupt", nil, Note, citeCorrupt, 72, 0},
	{"datafile", set64(dataL2+24, 1<<62|0x50000), Corruption, citeDataFileRules, dataL2 + 24, 0},
	{"datafile", append(set32(60, 1), set64(64, 0x50000)...), Corruption, citeDataFileRules, 64, 0},
	{"datafile", set64(dataL2+128, 1<<63|0x120000), Corruption, citeDataFileFixed, dataL2 + 128, 0},
	{"luks", set32(0x70, 0x12345678), Corruption, citeLUKSPresent, 32, 0},
	{"luks", set32(32, 0), Corruption, citeLUKSPresent, 0x78, 0},
	{"luks", set64(0x78, 0x40200), Corruption, citeLUKSAligned, 0x78, 0},

	{"v3", set64(v3L2+24, v3L1), Corruption, citeAllocation, v3L2 + 24, 0},
	{"v3", set64(v3L2+24, v3Snap0), Corruption, citeAllocation, v3L2 + 24, 0},
	{"v3", set64(v3RefTable+8, v3RefBlock), Corruption, citeAllocation, v3RefTable + 8, 0},
	{"v3", set16(v3RefBlock+2, 0), Corruption, citeRefcount, 0x10000, 0},
	{"v3", set16(v3RefBlock+2, 7), Leak, citeRefcount, 0x10000, 0},
	{"v3", set16(v3RefBlock+0x4000, 1), Leak, citeRefcount, 0x2000 * 0x10000, 0},
	{"v3", set64(v3RefTable, v3RefBlock|1), Corruption, citeRefEntryBits, v3RefTable, 0},
	{"v3", set64(v3RefTable, v3RefBlock|0x200), Corruption, citeRefEntry, v3RefTable, 0},
	{"v3", set64(v3RefTable, 1<<62), Corruption, citeRefEntry, v3RefTable, 0},
	{"v3", set64(v3RefTable+8, 0x250000), Corruption, citeRefBlockSize, v3RefTable + 8, 0x25f000},

	{"v3", set32(v3Snap0+8, 0x100000), Corruption, citeL1Contiguous, 0x1b0000, 0},
	{"v3", set32(v3Snap0+8, 0xffffffff), Corruption, citeL1Contiguous, v3Snap0, 0},
	{"v3", set64(v3L1, 1<<63|1<<60|v3L2), Corruption, citeL1Reserved, v3L1, 0},
	{"v3", set64(v3L1, 1<<63|1|v3L2), Corruption, citeL1Reserved, v3L1, 0},
	{"v3", set64(v3L1, 1<<63|0x200|v3L2), Corruption, citeL1Offset, v3L1, 0},
	{"v3", set64(v3L1, 1<<63|1<<40), Corruption, citeL1Offset, v3L1, 0},
	{"v3", set64(v3L1, v3L2), Corruption, citeL1Copied, v3L1, 0},
	{"v3", set64(v3L1, 1<<63), Corruption, citeL1Copied, v3L1, 0},
	{"v3", set64(v3L1, 0x250000), Corruption, citeL2Size, v3L1, 0x25f000},
	{"v3", set64(v3L2+32, 0x240000), Corruption, citeL2Copied, v3L2 + 32, 0},
	{"v3", set64(v3L2+8, 1<<63|0x1e0000), Corruption, citeL2Copied, v3L2 + 8, 0},
	{"zlib", set64(zipL2, 1<<63|1<<62|0x50000), Corruption, citeL2Copied, zipL2, 0},
	{"datafile", set64(dataL2+128, 0x100000), Corruption, citeL2DataFile, dataL2 + 128, 0},
	{"v2", set64(v2L2+8, 0x1e0001), Corruption, citeL2ZeroBit, v2L2 + 8, 0},
	{"extl2", set64(subL2, 0xe0001), Corruption, citeL2ZeroBit, subL2, 0},
	{"v3", set64(v3L2+8, 0x1e0002), Corruption, citeL2Reserved, v3L2 + 8, 0},
	{"v3", set64(v3L2+8, 1<<56|0x1e0000), Corruption, citeL2Reserved, v3L2 + 8, 0},
	{"v3", set64(v3L2+8, 0x1e0200), Corruption, citeL2Offset, v3L2 + 8, 0},
	{"v3", set64(v3L2+8, 1<<50), Corruption, citeL2Offset, v3L2 + 8, 0},
	{"v3", set64(v3L2+8, v3Length), Corruption, citeL2Offset, v3L2 + 8, 0},
	{"v3", set64(v3L2+128, 1<<63), Corruption, citeL2NoOffset, v3L2 + 128, 0},
	{"cluster-512", set64(tinyL2, 1<<62|1<<56), Corruption, citeZipOffset, tinyL2, 0},
	{"zlib", set64(zipL2, 1<<62|0xe0000|8<<54), Corruption, citeZipSectors, zipL2, 0},
	{"extl2", append(set64(subL2, 0), set64(subL2+8, 1)...), Corruption, citeSubAlloc, subL2, 0},
	{"extl2", set64(subL2+8, 1<<32|1), Corruption, citeSubZero, subL2, 0},
	{"extl2", set64(subL2, 1<<62|0xe0000), Corruption, citeSubZip, subL2, 0},

	{"v3", set32(60, 70000), Corruption, citeSnapshotTable, 60, 0},
	{"v3", set32(60, 60000), Corruption, citeSnapshotTable, 64, 0},
	{"v3", set64(64, v3Snap0|0x200), Corruption, citeSnapshotPlace, 64, 0},
	{"v3", set64(v3Snap0, 0x1b0200), Corruption, citeSnapshotL1, v3Snap0, 0},
	{"v3", set64(v3Snap0, 0), Corruption, citeSnapshotL1, v3Snap0, 0},
	{"v3", set64(v3Snap1, 0x1b0000), Corruption, citeSnapshotCopy, 0x1b0000, 0},
	{"v3", set32(v3Snap0+36, 8), Corruption, citeSnapshotExtra, v3Snap0, 0},
	{"v3", set32(v3Snap0+36, 2000), Corruption, citeSnapshotKnown, v3Snap0, 0},
	{"v3", set8(v3Snap1+64, '1'), Corruption, citeSnapshotID, v3Snap1, 0},
	{"v3", set64(v3Snap0+48, 1<<40), Corruption, citeSnapshotDisk, v3Snap0, 0},
	{"v3", set64(v3Snap0+40, 1), Corruption, citeSnapshotState, v3Snap0, 0},

	{"bitmaps", set64(88, 0), Note, citeBitmapsOff, 88, 0},
	{"bitmaps", set32(mapExt, 0), Corruption, citeBitmapCount, mapExt, 0},
	{"bitmaps", set32(mapExt+4, 1), Corruption, citeBitmapReserved, mapExt, 0},
	{"bitmaps", set64(mapExt+8, 0x60), Corruption, citeBitmapDirSize, mapDir2, 0},
	{"bitmaps", set32(mapExt, 2), Corruption, citeBitmapDirSize, mapExt, 0},
	{"bitmaps", set64(mapExt+16, mapDir0|0x200), Corruption, citeBitmapDir, mapExt, 0},
	{"bitmaps", set64(mapExt+8, 1<<20), Corruption, citeBitmapArea, mapExt, 0},
	{"bitmaps", set64(mapDir0, mapTable0|0x200), Corruption, citeBitmapTable, mapDir0, 0},
	{"bitmaps", set32(mapDir0+12, 8), Corruption, citeBitmapFlags, mapDir0, 0},
	{"bitmaps", set32(mapDir0+12, 1), Note, citeBitmapInUse, mapDir0, 0},
	{"bitmaps", set8(mapDir1+16, 2), Corruption, citeBitmapAuto, mapDir1, 0},
	{"bitmaps", set8(mapDir0+16, 2), Corruption, citeBitmapType, mapDir0, 0},
	{"bitmaps", set8(mapDir0+17, 8), Corruption, citeBitmapGran, mapDir0, 0},
	{"bitmaps", set8(mapDir0+17, 32), Corruption, citeBitmapGran, mapDir0, 0},
	{"bitmaps", set16(mapDir0+18, 0), Corruption, citeBitmapNoName, mapDir0, 0},
	{"bitmaps", set32(mapDir0+20, 8), Corruption, citeBitmapExtra, mapDir0, 0},
	{"bitmaps", append(set32(mapDir0+20, 8), set32(mapDir0+12, 4)...), Note, citeBitmapExtra, mapDir0, 0},
	{"bitmaps", append(set16(mapDir2+18, 4), set64(mapDir2+24, 0x66696e65_00000000)...), Corruption, citeBitmapName, mapDir2, 0},
	{"bitmaps", set8(mapDir0+37, 1), Corruption, citeBitmapPadding, mapDir0, 0},
	{"bitmaps", set32(mapDir0+8, 2), Corruption, citeBitmapSize, mapDir0, 0},
	{"bitmaps", set32(mapDir0+8, 1<<24), Corruption, citeBitmapWhole, mapDir0, 0},
	{"bitmaps", set64(mapTable0, mapData0|1), Corruption, citeBitmapBit0, mapTable0, 0},
	{"bitmaps", set64(mapTable0, mapData0|2), Corruption, citeBitmapBits, mapTable0, 0},
	{"bitmaps", set64(mapTable0, mapData0|0x200), Corruption, citeBitmapOffset, mapTable0, 0},
	{"bitmaps", set64(mapTable0, 1<<40), Corruption, citeBitmapOffset, mapTable0, 0},
	{"bitmaps", set8(mapData0+8, 1), Corruption, citeBitmapTail, mapTable0, 0},
}

func TestCheckRules(t *testing.T) {
	images := map[string][]byte{}
	covered := map[string]bool{}
	for _, r := range rules {
		sound, ok := images[r.image]
		if !ok {
			var err error
			if sound, err = os.ReadFile(sample.Open(t, r.image+".qcow2")); err != nil {
				t.Fatal(err)
			}
			images[r.image] = sound
		}
		b := bytes.Clone(sound)
		for _, p := range r.edits {
			var v [8]byte
			binary.BigEndian.PutUint64(v[:], p.value)
			copy(b[p.off:], v[8-p.width:])
		}
		if r.cut > 0 {
			b = b[:r.cut]
		}
		covered[r.cite] = true
		find := func(b []byte) (found bool, all []Fault) {
			if _, err := Check(context.Background(), bytes.NewReader(b), int64(len(b)), func(f Fault) {
				all = append(all, f)
				found = found || f.Kind == r.kind && f.Cite == r.cite && f.Off == r.off
			}); err != nil {
				t.Errorf("%s %v: %v", r.image, r.edits, err)
			}
			return found, all
		}
		if found, all := find(b); !found {
			t.Errorf("%s %x: no %s at 0x%x that breaks %s; found %v", r.image, r.edits, r.kind, r.off, r.cite, all)
		}
		if len(r.edits) == 0 {
			continue
		}
		if found, _ := find(sound); found {
			t.Errorf("%s: found undamaged: %s", r.image, r.cite)
		}
	}
	for name, cite := range cites(t) {
		if !covered[cite] {
			t.Errorf("no test breaks %s: %s", name, cite)
		}
	}
}

// An image without tables that could be trusted is an error.
func TestCheckRefuses(t *testing.T) {
	sound, err := os.ReadFile(sample.Open(t, "v3.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	for field, e := range map[string]edit{
		"magic":                   {0, 1, 'q'},
		"version":                 {4, 4, 4},
		"cluster_bits":            {20, 4, 22},
		"crypt_method":            {32, 4, 3},
		"l1_table_offset":         {40, 8, 1 << 40},
		"refcount_table_offset":   {48, 8, 0x10200},
		"refcount_table_clusters": {56, 4, 0},
		"incompatible_features":   {72, 8, 1 << 5},
		"refcount_order":          {96, 4, 7},
	} {
		b := bytes.Clone(sound)
		var v [8]byte
		binary.BigEndian.PutUint64(v[:], e.value)
		copy(b[e.off:], v[8-e.width:])
		stats, err := Check(context.Background(), bytes.NewReader(b), int64(len(b)), func(f Fault) { t.Errorf("%s: %v", field, f) })
		var format *sparse.FormatError
		if !errors.As(err, &format) || format.Field != field || stats != (CheckStats{}) {
			t.Errorf("%s: %v, %+v", field, err, stats)
		}
	}
}

// cites returns the constants of check_cite.go.
func cites(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "check_cite.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			all[v.Names[0].Name] = s
		}
		return true
	})
	return all
}

func TestCheckRulesDocumented(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "docs", "check.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, cite := range cites(t) {
		if !strings.Contains(string(doc), cite) {
			t.Errorf("docs/check.md does not have: %s", cite)
		}
	}
}
