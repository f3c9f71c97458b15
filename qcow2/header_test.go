package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/testimg"
	"cbt/internal/testtool"
	"cbt/sparse"
)

var be = binary.BigEndian

// patch overwrites bytes of an image.
type patch struct {
	at int64
	b  []byte
}

func u32(at int64, v uint32) patch { return patch{at, be.AppendUint32(nil, v)} }
func u64(at int64, v uint64) patch { return patch{at, be.AppendUint64(nil, v)} }

func patched(b []byte, patches ...patch) []byte {
	b = bytes.Clone(b)
	for _, p := range patches {
		copy(b[p.at:p.at+int64(len(p.b))], p.b)
	}
	return b
}

func openBytes(b []byte, opt Options) (*Image, error) {
	return Open(bytes.NewReader(b), int64(len(b)), opt)
}

func anyBacking(string, string) (sparse.View, error) { return sparse.Zeros(1 << 20), nil }

// wantFormatError checks that err is a *sparse.FormatError whose text contains want.
func wantFormatError(t *testing.T, err error, want string) {
	t.Helper()
	var fe *sparse.FormatError
	if !errors.As(err, &fe) {
		t.Errorf("got %v, want a format error with %q", err, want)
		return
	}
	noteMessage(err.Error())
	if !strings.Contains(err.Error(), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	} else if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %v", err)
	}
}

func TestHeaderRefused(t *testing.T) {
	q := testimg.NewQcow2(testimg.Qcow2Options{Size: 10 << 20})
	q.Write(0, []byte("x"))
	q.Snapshot("1", "one")
	sound := q.Bytes()
	table := be.Uint64(sound[64:])
	dir := t.TempDir()
	for _, c := range []struct {
		name  string
		patch []patch
		want  string
	}{
		{"magic", []patch{{3, []byte{0xfa}}}, `qcow2 header at 0x0: magic "QFI\xfa": not a qcow2 image`},
		{"version 1", []patch{u32(4, 1)}, "qcow2 header at 0x4: version 0x1: not 2 or 3"},
		{"version 4", []patch{u32(4, 4)}, "version 0x4: not 2 or 3"},
		{"cluster_bits 8", []patch{u32(20, 8)}, "qcow2 header at 0x14: cluster_bits 0x8: not in 9..21"},
		{"cluster_bits 22", []patch{u32(20, 22)}, "cluster_bits 0x16: not in 9..21"},
		{"cluster_bits 2^31", []patch{u32(20, 1<<31)}, "cluster_bits 0x80000000: not in 9..21"},
		{"crypt_method 1", []patch{u32(32, 1)}, "crypt_method 0x1: AES: encrypted"},
		{"crypt_method 2", []patch{u32(32, 2)}, "crypt_method 0x2: LUKS: encrypted"},
		{"crypt_method 3", []patch{u32(32, 3)}, "crypt_method 0x3: unknown encryption"},
		{"l1_size", []patch{u32(36, 4<<20+1)}, "l1_size 0x400001: more than 4194304 entries"},
		{"l1_size past the end", []patch{u32(36, 4<<20)}, "l1_table_offset 0x10000: 33554432 bytes there are not inside"},
		{"l1_size too small", []patch{u32(36, 0)}, "l1_size 0x0: a disk of 10485760 bytes needs 1 entries"},
		{"l1_table_offset unaligned", []patch{u64(40, 0x10200)}, "l1_table_offset 0x10200: not cluster aligned"},
		{"l1_table_offset 0", []patch{u64(40, 0)}, "l1_table_offset 0x0: a table at the place of the header"},
		{"l1_table_offset past the end", []patch{u64(40, 1<<40)}, "l1_table_offset 0x10000000000: 8 bytes there are not inside"},
		{"l1_table_offset negative", []patch{u64(40, 1<<63)}, "l1_table_offset 0x8000000000000000: 8 bytes there are not inside"},
		{"l1_table_offset wraps", []patch{u64(40, 1<<64-1<<16)}, "l1_table_offset 0xffffffffffff0000: 8 bytes there"},
		{"refcount_table_offset unaligned", []patch{u64(48, 0x10001)}, "refcount_table_offset 0x10001: not cluster aligned"},
		{"refcount_table_offset past the end", []patch{u64(48, 1<<50)}, "refcount_table_offset"},
		{"refcount_table_clusters 0", []patch{u32(56, 0)}, "refcount_table_clusters 0x0: no refcount table"},
		{"refcount_table_clusters", []patch{u32(56, 129)}, "refcount_table_clusters 0x81: more than 8388608 bytes"},
		{"refcount_table_clusters wraps", []patch{u32(56, 1<<32-1)}, "refcount_table_clusters 0xffffffff: more than"},
		{"nb_snapshots", []patch{u32(60, 65537)}, "nb_snapshots 0x10001: more than 65536"},
		{"nb_snapshots past the end", []patch{u32(60, 65536)}, "snapshots_offset"},
		{"snapshots_offset unaligned", []patch{u64(64, table+8)}, "not cluster aligned"},
		{"snapshots_offset 0", []patch{u64(64, 0)}, "snapshots_offset 0x0: a table at the place of the header"},
		{"size", []patch{u64(24, 1<<63)}, "size 0x8000000000000000: more than 2^63-1"},
		{"size needs more", []patch{u64(24, 1<<63-1)}, "l1_size 0x1: a disk of 9223372036854775807 bytes needs 17179869184 entries"},
		{"incompatible bit 5", []patch{u64(72, 1<<5)}, "incompatible_features 0x20: unknown: bit 5, which the image does not name"},
		{"incompatible bits", []patch{u64(72, 1<<63|1<<7)}, "unknown: bit 7, which the image does not name, bit 63, which"},
		{"corrupt", []patch{u64(72, 2)}, ErrCorrupt.Error()},
		{"compression without bit", []patch{{104, []byte{1}}}, "compression_type 0x1: is not deflate, but"},
		{"bit without compression", []patch{u64(72, 1<<3)}, "compression_type 0x0: is deflate, but"},
		{"compression_type 2", []patch{u64(72, 1<<3), {104, []byte{2}}}, "compression_type 0x2: unknown compression"},
		{"refcount_order", []patch{u32(96, 7)}, "refcount_order 0x7: more than 6"},
		{"header_length 96", []patch{u32(100, 96)}, "header_length 0x60: less than 104"},
		{"header_length", []patch{u32(100, 1<<16+8)}, "header_length 0x10008: more than a cluster of 65536 bytes"},
		{"backing_file_offset", []patch{u64(8, 1<<16+1), u32(16, 1)}, "backing_file_offset 0x10001: not in the first cluster"},
		{"backing_file_size", []patch{u64(8, 200), u32(16, 1024)}, "backing_file_size 0x400: more than 1023 bytes"},
		{"backing_file_size past the cluster", []patch{u64(8, 1<<16-10), u32(16, 11)}, "backing_file_size 0xb"},
		{"extension too long", []patch{u32(112, 1), u32(116, 1<<16-112-8+1)}, "qcow2 header extension at 0x70: length 0xff89: longer than the room"},
		{"extension twice", []patch{u32(112, ExtensionBackingFormat), u32(120, ExtensionBackingFormat)}, "type 0xe2792aca: twice"},
		{"backing format too long", []patch{u32(112, ExtensionBackingFormat), u32(116, 4097)}, "length 0x1001: more than 4096"},
		{"l2 with small clusters", []patch{u32(20, 13), u64(72, 1<<4)}, "cluster_bits 0xd: less than 14 with extended L2 entries"},
		{"snapshot extra data", []patch{u32(int64(table)+36, 1025)}, "qcow2 snapshot table entry at"},
		{"snapshot disk size", []patch{u64(int64(table)+48, 1<<63)}, "disk size 0x8000000000000000: more than 2^63-1"},
		{"snapshot l1_table_offset", []patch{u64(int64(table), 1<<63)}, "l1_table_offset 0x8000000000000000: more than 2^63-1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := patched(sound, c.patch...)
			img, err := openBytes(b, Options{Backing: anyBacking})
			wantFormatError(t, err, c.want)
			if img != nil {
				t.Error("an error and an image")
			}
			refusedByQEMU(t, dir, c.name, b)
		})
	}
}

// laxInQEMU lists those of our refusals that QEMU does not share when it opens an image, because it
// notices the fault later or not at all.
var laxInQEMU = map[string]bool{
	"corrupt":                            true, // read-only
	"extension twice":                    true,
	"l1_size past the end":               true, // reads zeros there
	"nb_snapshots past the end":          true,
	"snapshots_offset 0":                 true,
	"l1_table_offset 0":                  true,
	"snapshot disk size":                 true,
	"snapshot l1_table_offset":           true,
	"crypt_method 1":                     true, // wants the key
	"l1_table_offset past the end":       true,
	"refcount_table_offset past the end": true,
}

func refusedByQEMU(t *testing.T, dir, name string, b []byte) {
	if laxInQEMU[name] {
		return
	}
	path := filepath.Join(dir, "image")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := testtool.Try(t, "qemu-io", "-r", "-f", "qcow2", "-c", "read 0 512", path); err == nil && !strings.Contains(out, "can't open") {
		t.Errorf("QEMU takes it: %s", out)
	}
}

func TestHeaderAccepted(t *testing.T) {
	for _, c := range []struct {
		name  string
		opt   testimg.Qcow2Options
		patch []patch
	}{
		{"version 2", testimg.Qcow2Options{Version: 2, Size: 1 << 20}, nil},
		{"header_length 104", testimg.Qcow2Options{Size: 1 << 20}, []patch{u32(100, 104)}},
		{"header_length 105", testimg.Qcow2Options{Size: 1 << 20}, []patch{u32(100, 105)}},
		{"header_length a cluster", testimg.Qcow2Options{Size: 1 << 20}, []patch{u32(100, 1<<16)}},
		{"dirty", testimg.Qcow2Options{Size: 1 << 20, Incompatible: 1}, nil},
		{"unknown compatible bits", testimg.Qcow2Options{Size: 1 << 20, Compatible: 1<<63 | 2}, nil},
		{"unknown autoclear bits", testimg.Qcow2Options{Size: 1 << 20, Autoclear: 1<<63 | 1}, nil},
		{"unknown extensions", testimg.Qcow2Options{Size: 1 << 20, Extensions: []testimg.Qcow2Extension{{Type: 7, Data: []byte("seven")}, {Type: 7}}}, nil},
		{"no disk at all", testimg.Qcow2Options{}, nil},
		{"smallest clusters", testimg.Qcow2Options{ClusterBits: 9, Size: 1 << 16}, nil},
		{"largest clusters", testimg.Qcow2Options{ClusterBits: 21, Size: 1 << 22}, nil},
		{"a backing file without a name", testimg.Qcow2Options{Size: 1 << 20}, []patch{u64(8, 120), u32(16, 0)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := patched(testimg.NewQcow2(c.opt).Bytes(), c.patch...)
			img, err := openBytes(b, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got := mustRead(t, img.Active()); !sparse.IsZero(got) || int64(len(got)) != c.opt.Size {
				t.Errorf("%d bytes", len(got))
			}
		})
	}
}

func TestFeatureNames(t *testing.T) {
	record := func(set, bit byte, name string) []byte {
		return append([]byte{set, bit}, append([]byte(name), make([]byte, 46-len(name))...)...)
	}
	table := bytes.Join([][]byte{
		record(0, 0, "soiled"), record(0, 9, "time travel"), record(0, 10, strings.Repeat("n", 46)), record(1, 9, "compatible nine"), {0, 11, 'c', 'u', 't'},
	}, nil)
	opt := testimg.Qcow2Options{Size: 1 << 20, Incompatible: 1<<9 | 1<<10 | 1<<11,
		Extensions: []testimg.Qcow2Extension{{Type: ExtensionFeatureNames, Data: table}}}
	_, err := openBytes(testimg.NewQcow2(opt).Bytes(), Options{})
	wantFormatError(t, err, `unknown: "time travel" (bit 9), "`+strings.Repeat("n", 46)+`" (bit 10), bit 11, which the image does not name`)

	opt.Incompatible, opt.Compatible, opt.Autoclear = 1, 1<<9|1, 1<<1|1<<40
	img, err := openBytes(testimg.NewQcow2(opt).Bytes(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	i, c, a := img.FeatureNames()
	if got := strings.Join(append(append(i, c...), a...), ", "); got != "dirty bit, lazy refcounts, compatible nine, raw external data, bit 40" {
		t.Error(got)
	}
	if !img.Dirty() {
		t.Error("not dirty")
	}
	if x := img.Extensions(); len(x) != 1 || !x[0].Known() || x[0].Off != 120 || int(x[0].Len) != len(table) {
		t.Error(x)
	}
}

// TestUnknownFeatureBeatsDamage: an image in a future format may contain anything.
func TestUnknownFeatureBeatsDamage(t *testing.T) {
	b := testimg.NewQcow2(testimg.Qcow2Options{Size: 1 << 20, Incompatible: 1 << 6}).Bytes()
	_, err := openBytes(patched(b, u32(96, 99), u32(112, 5), u32(116, 1<<31)), Options{})
	wantFormatError(t, err, "unknown: bit 6")
}

func TestAllowCorrupt(t *testing.T) {
	b := testimg.NewQcow2(testimg.Qcow2Options{Size: 1 << 20, Incompatible: 2}).Bytes()
	if _, err := openBytes(b, Options{}); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	if _, err := openBytes(b, Options{AllowCorrupt: true}); err != nil {
		t.Error(err)
	}
}

func TestCallbacks(t *testing.T) {
	b := testimg.NewQcow2(testimg.Qcow2Options{Size: 1 << 20, Backing: "../base", BackingFormat: "raw", DataFile: "dir/data"}).Bytes()
	data := func(name string) (io.ReaderAt, int64, error) {
		if name != "dir/data" {
			t.Errorf("data file %q", name)
		}
		return bytes.NewReader(nil), 0, nil
	}
	var backing []string
	base := sparse.Zeros(5)
	img, err := openBytes(b, Options{Data: data, Backing: func(name, format string) (sparse.View, error) {
		backing = append(backing, name, format)
		return base, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(backing, " ") != "../base raw" || img.Active().Backing() != base || img.BackingFormat() != "raw" || img.DataFile() != "dir/data" {
		t.Error(backing, img.BackingFormat(), img.DataFile())
	}
	fail := errors.New("no")
	for _, c := range []struct {
		opt  Options
		want string
	}{
		{Options{Data: data}, `qcow2: backing file "../base": not allowed`},
		{Options{Backing: anyBacking}, `qcow2: external data file "dir/data": not allowed`},
		{Options{Data: data, Backing: func(string, string) (sparse.View, error) { return nil, fail }}, `qcow2: backing file "../base": no`},
		{Options{Data: data, Backing: func(string, string) (sparse.View, error) { return nil, nil }}, `qcow2: Options.Backing returned no view and no error`},
		{Options{Backing: anyBacking, Data: func(string) (io.ReaderAt, int64, error) { return nil, 0, fail }}, `qcow2: external data file "dir/data": no`},
	} {
		if _, err := openBytes(b, c.opt); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}
