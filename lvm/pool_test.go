package lvm

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cbt/lvm/thin"
	"cbt/sparse"
)

// retext returns disks on which the text of the group was replaced.
func retext(t *testing.T, disks []Disk, change func(text string) string) (all []Disk) {
	t.Helper()
	for _, d := range disks {
		pv, err := ReadPV(d.R, d.Size)
		if err != nil {
			t.Fatal(err)
		}
		m := pv.MetadataAreas[0]
		text := append([]byte(change(string(m.Text))), 0)
		if bytes.Equal(text[:len(text)-1], m.Text) {
			t.Fatal("the text did not change")
		}
		h := make([]byte, 512)
		if _, err := d.R.ReadAt(h, m.Off); err != nil {
			t.Fatal(err)
		}
		le.PutUint64(h[40:], 512)
		le.PutUint64(h[48:], uint64(len(text)))
		le.PutUint32(h[56:], checksum(text))
		sealMDA(h)
		d.R = &patched{d, map[int64][]byte{m.Off: append(h, text...)}}
		all = append(all, d)
	}
	return all
}

// The pool's own metadata must fit the text.
func TestHazard7PoolAgainstText(t *testing.T) {
	all := disks(t, "mixed")
	pool := assemble(t, all...).LV("pool").Segments[0]
	if pool.ChunkSize != 192<<10 || pool.TransactionID < 5 || pool.Messages != 0 {
		t.Fatalf("%+v", pool)
	}
	inPool := func(old, new string) func(string) string {
		return func(text string) string {
			at := strings.Index(text, "type = \"thin-pool\"")
			end := at + strings.Index(text[at:], "}")
			return text[:at] + strings.Replace(text[at:end], old, new, 1) + text[end:]
		}
	}
	id := func(n int64) string { return "transaction_id = " + itoa(n) }
	now := id(pool.TransactionID)
	for _, c := range []struct {
		name    string
		change  func(string) string
		volume  string
		want    string
		refused bool
	}{
		{"a transaction ahead", inPool(now, id(pool.TransactionID+1)), "snap1", "mixed/pool: not read: its metadata are at transaction " + itoa(pool.TransactionID) + ", the group's text at " + itoa(pool.TransactionID+1), true},
		{"a transaction behind", inPool(now, id(pool.TransactionID-1)), "snap1", "the group's text at " + itoa(pool.TransactionID-1), true},
		{"two ahead with messages", inPool(now, id(pool.TransactionID+2)+"\nmessage1 {\ncreate = \"x\"\n}\n"), "snap1", "its metadata are at transaction", true},
		{"one ahead with messages", inPool(now, id(pool.TransactionID+1)+"\nmessage1 {\ncreate = \"x\"\n}\n"), "snap1", "an operation on the pool was not finished", true},
		{"another chunk size", inPool("chunk_size = 384", "chunk_size = 256"), "snap1", "its chunk size is not the 196608 bytes of its metadata", false},
		{"a device that is not there", func(s string) string { return strings.Replace(s, "device_id = 2", "device_id = 200", 1) }, "snap1", "no such thin device: 200", false},
		{"a flag that is not known", func(s string) string { return strings.Replace(s, `"thin-pool"`, `"thin-pool+NEW"`, 1) }, "snap1", `"thin-pool+NEW" has a flag`, true},
		{"less data", func(s string) string { return strings.ReplaceAll(s, "extent_count = 192", "extent_count = 96") }, "snap1", "more data blocks in its metadata than fit the 6291456 bytes of pool_tdata", false},
		{"a pool that is none", func(s string) string { return strings.ReplaceAll(s, `thin_pool = "pool"`, `thin_pool = "org"`) }, "snap1", "names a thin pool that is none", false},
		{"an external origin that is not there", func(s string) string {
			return strings.Replace(s, `external_origin = "ext"`, `external_origin = "extra"`, 1)
		}, "overext", `"extra": overext names a volume that is not there`, false},
		{"an external origin in a loop", func(s string) string {
			return strings.Replace(s, `external_origin = "ext"`, `external_origin = "overext"`, 1)
		}, "overext", "it is made of itself: overext -> overext", false},
		{"a merge", func(s string) string {
			return strings.Replace(s, "device_id = 2", "device_id = 2\nmerge = \"thin1\"", 1)
		}, "snap1", "it is being merged into thin1", true},
		{"a merge into it", func(s string) string {
			return strings.Replace(s, "device_id = 2", "device_id = 2\nmerge = \"thin1\"", 1)
		}, "thin1", "the snapshot snap1 is being merged into it", true},
		{"flags that are known", func(s string) string { return strings.Replace(s, `"thin-pool"`, `"thin-pool+CROP_METADATA"`, 1) }, "snap2", "-", false},
	} {
		g := assemble(t, retext(t, all, c.change)...)
		v, err := g.Open(c.volume, OpenOptions{})
		switch {
		case c.want == "-":
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		case err == nil || v != nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		case c.refused != (asRefused(err) != nil):
			t.Errorf("%s: %T", c.name, err)
		}
		if _, err := g.Open("lin", OpenOptions{}); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// Recheck finds changes below the text: a pool, or an exception table, that is no longer as it was.
func TestRecheckBelow(t *testing.T) {
	ctx := context.Background()
	all := disks(t, "mixed")
	g := assemble(t, all...)
	for _, c := range []struct {
		holder string // the one that holds what changes
		at     int64
		want   error
		finds  []string
		not    []string
	}{
		{"pool_tmeta_rimage_0", 0x30, sparse.ErrChanged, []string{"thin1", "snap1", "thinthick"}, []string{"lin", "thick1"}},
		{"thick1", 4, sparse.ErrChanged, []string{"thick1", "snapshot0"}, []string{"org", "thick2", "thin1"}},
	} {
		disk, off := placeOf(t, g, c.holder)
		set := slices.Clone(all)
		p := &patched{all[disk], map[int64][]byte{}}
		set[disk].R = p
		changing := assemble(t, set...)
		for _, name := range slices.Concat(c.finds, c.not) {
			if err := mustOpen(t, changing, name).Recheck(ctx); err != nil {
				t.Fatal(err)
			}
		}
		p.at[off+c.at] = []byte{0xee}
		for _, name := range c.finds {
			if err := mustOpen(t, changing, name).Recheck(ctx); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, name := range c.not {
			if err := mustOpen(t, changing, name).Recheck(ctx); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// needs_check, and metadata that were never written to.
func TestPoolMetadata(t *testing.T) {
	all := disks(t, "mixed")
	g := assemble(t, all...)
	meta := mustOpen(t, g, "pool_tmeta")
	super := make([]byte, 4096)
	if _, err := meta.ReadAt(super, 0); err != nil {
		t.Fatal(err)
	}
	disk, off := placeOf(t, g, "pool_tmeta_rimage_0")
	with := func(block []byte) *Group {
		set := append([]Disk(nil), all...)
		set[disk].R = &patched{all[disk], map[int64][]byte{off: block}}
		return assemble(t, set...)
	}
	check := bytes.Clone(super)
	check[4] |= 1
	le.PutUint32(check, ^crc32.Checksum(check[4:], crc32.MakeTable(crc32.Castagnoli))^160774)
	g = with(check)
	if _, err := g.Open("snap1", OpenOptions{}); asRefused(err) == nil || !strings.Contains(err.Error(), "mixed/pool: not read: its metadata need checking") {
		t.Error(err)
	}
	v, err := with(check).Open("snap1", OpenOptions{AllowNeedsCheck: true})
	if err != nil {
		t.Fatal(err)
	}
	if sb := v.Pool().Superblock(); !sb.NeedsCheck() {
		t.Error("the flag is not set")
	}
	if _, err := with(make([]byte, 4096)).Open("snap1", OpenOptions{}); !errors.Is(err, thin.ErrUnformatted) {
		t.Error(err)
	}
	super[100]++
	if _, err := with(super).Open("snap1", OpenOptions{}); !isFault(err) || !strings.HasPrefix(err.Error(), "mixed/snap1: mixed/pool: ") {
		t.Error(err)
	}
}
