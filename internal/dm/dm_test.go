package dm

import (
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"
)

var ne = binary.NativeEndian

// name is one struct dm_name_list, padded to 8 bytes.
func nameEntry(dev uint64, name string, last bool) []byte {
	b := ne.AppendUint64(nil, dev)
	b = ne.AppendUint32(b, 0)
	b = append(b, name...)
	b = append(b, make([]byte, 8-len(b)%8)...)
	if !last {
		ne.PutUint32(b[8:], uint32(len(b)))
	}
	return b
}

func TestDecodeNames(t *testing.T) {
	data := append(nameEntry(0xfd00, "vg-a", false), nameEntry(0xfd01, "vg-longer--name", true)...)
	got, err := decodeNames(data)
	if want := []string{"vg-a", "vg-longer--name"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%q, %v", got, err)
	}
	if got, err := decodeNames(make([]byte, 64)); got != nil || err != nil {
		t.Errorf("no devices: %q, %v", got, err)
	}
	for i := 12; i <= 24+12; i++ { // the first entry takes 24 bytes
		if got, err := decodeNames(data[:i:i]); err == nil {
			t.Errorf("cut at %d: %q", i, got)
		}
	}
	loop := nameEntry(0xfd00, "a", false)
	ne.PutUint32(loop[8:], 4)
	if _, err := decodeNames(loop); err == nil {
		t.Error("an entry that points into itself is accepted")
	}
}

func target(at int, start, length uint64, kind, params string, slack int) []byte {
	b := ne.AppendUint64(nil, start)
	b = ne.AppendUint64(b, length)
	b = append(b, make([]byte, 8)...)
	b = append(b, kind...)
	b = append(b, make([]byte, 40-len(b))...)
	b = append(b, params...)
	b = append(b, make([]byte, 8-len(b)%8+slack)...)
	ne.PutUint32(b[20:], uint32(at+len(b)))
	return b
}

func TestDecodeTargets(t *testing.T) {
	data := target(0, 0, 100, "linear", "253:1 0", 0)
	data = append(data, target(len(data), 100, 50, "thin-pool", "1 2/3 4/5 - rw", 0)...)
	want := []Target{{0, 100, "linear", "253:1 0"}, {100, 50, "thin-pool", "1 2/3 4/5 - rw"}}
	got, err := decodeTargets(data, 2)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range data {
		if _, err := decodeTargets(data[:i:i], 2); err == nil {
			t.Errorf("cut at %d of %d is accepted", i, len(data))
		}
	}
	for _, next := range []uint32{0, 39, uint32(len(data) + 1), 1<<32 - 1} {
		bad := append([]byte(nil), data...)
		ne.PutUint32(bad[20:], next)
		if _, err := decodeTargets(bad, 2); err == nil {
			t.Errorf("next of %d is accepted", next)
		}
	}
	if _, err := decodeTargets(data, maxTargets+1); err == nil {
		t.Error("too many targets are accepted")
	}
}

func TestHeader(t *testing.T) {
	buf := make([]byte, firstBuffer)
	for _, r := range []request{{name: strings.Repeat("n", nameLen)}, {uuid: strings.Repeat("u", uuidLen)}, {data: make([]byte, len(buf))}} {
		if err := r.encode(buf); err == nil {
			t.Errorf("%d, %d, %d bytes are accepted", len(r.name), len(r.uuid), len(r.data))
		}
	}
	r := request{uuid: "LVM-x", flags: flagNoFlush, data: encodeMessage(0, "hello")}
	if err := r.encode(buf); err != nil {
		t.Fatal(err)
	}
	ne.PutUint32(buf[28:], flagActive|flagReadOnly)
	ne.PutUint32(buf[24:], 3)
	ne.PutUint64(buf[40:], 0x1234fd56)
	h, data, err := decodeHeader(buf)
	if err != nil || cString(data[8:]) != "hello" {
		t.Fatalf("%+v, %v", h, err)
	}
	want := Device{UUID: "LVM-x", Major: 0x4fd, Minor: 0x12356, OpenCount: 3, Live: true, ReadOnly: true}
	if got := h.device(); got != want {
		t.Errorf("%#v\nwant %#v", got, want)
	}
	for _, start := range []uint32{0, 311, uint32(len(buf) + 1)} {
		ne.PutUint32(buf[16:], start)
		if _, _, err := decodeHeader(buf); err == nil {
			t.Errorf("data at %d is accepted", start)
		}
	}
	if _, _, err := decodeHeader(buf[:100]); err == nil {
		t.Error("a cut header is accepted")
	}
}

func TestParsePoolStatus(t *testing.T) {
	for _, c := range []struct {
		line string
		want PoolStatus
	}{
		{"0 841/8192 1039/8192 90 rw discard_passdown queue_if_no_space - 1024",
			PoolStatus{MetadataUsed: 841, MetadataTotal: 8192, DataUsed: 1039, DataTotal: 8192, HeldRoot: 90, Mode: "rw"}},
		{"7 1/2 3/4 - ro no_discard_passdown error_if_no_space needs_check 1024",
			PoolStatus{TransactionID: 7, MetadataUsed: 1, MetadataTotal: 2, DataUsed: 3, DataTotal: 4, Mode: "ro", NeedsCheck: true}},
		{"7 1/2 3/4 - out_of_data_space discard_passdown",
			PoolStatus{TransactionID: 7, MetadataUsed: 1, MetadataTotal: 2, DataUsed: 3, DataTotal: 4, Mode: "out_of_data_space"}},
		{"Fail", PoolStatus{Failed: true}},
		{"Error", PoolStatus{Failed: true}},
	} {
		if got, err := ParsePoolStatus(c.line); err != nil || got != c.want {
			t.Errorf("%q: %+v, %v", c.line, got, err)
		}
	}
	for _, line := range []string{"", "-", "1 2/3 4/5 -", "x 1/2 3/4 - rw", "1 1 3/4 - rw", "1 1/2 3/4 -1 rw", "1 1/2 3/4 - wr"} {
		if got, err := ParsePoolStatus(line); err == nil {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

func TestParseTables(t *testing.T) {
	pool, err := ParsePoolTable("253:0 253:1 128 0 1 skip_block_zeroing")
	if want := (PoolTable{Number{253, 0}, Number{253, 1}, 128}); err != nil || pool != want {
		t.Errorf("%+v, %v", pool, err)
	}
	snap, err := ParseSnapshotTable("253:3 253:4 PO 8")
	if want := (SnapshotTable{Number{253, 3}, Number{253, 4}, true, 8}); err != nil || snap != want {
		t.Errorf("%+v, %v", snap, err)
	}
	used, err := ParseSnapshotStatus("80/8192 16")
	if want := (SnapshotStatus{Used: 80, Total: 8192, Metadata: 16}); err != nil || used != want {
		t.Errorf("%+v, %v", used, err)
	}
	for _, broken := range []string{"Invalid", "Overflow", "Merge failed", "Unknown"} {
		if s, err := ParseSnapshotStatus(broken); err != nil || s.Broken != broken {
			t.Errorf("%q: %+v, %v", broken, s, err)
		}
	}
	for _, line := range []string{"", "a b", "253:0 x 128", "253 253:1 128"} {
		if _, err := ParsePoolTable(line); err == nil {
			t.Errorf("table %q is accepted", line)
		}
		if _, err := ParseSnapshotTable(line + " P 8"); err == nil {
			t.Errorf("snapshot table %q is accepted", line+" P 8")
		}
	}
	if _, err := ParseSnapshotStatus(""); err == nil {
		t.Error("an empty snapshot status is accepted")
	}
}

func TestLVMUUID(t *testing.T) {
	vg, lv := "AcHmQh-8gKR-cbBP-aWPU-iLMA-ZKUF-lgBKCX", "uefkOC-3nfL-N7nJ-0eap-Yhw2-6sH1-aUODEA"
	const plain = "LVM-AcHmQh8gKRcbBPaWPUiLMAZKUFlgBKCXuefkOC3nfLN7nJ0eapYhw26sH1aUODEA"
	if got := LVMUUID(vg, lv, LayerNone); got != plain {
		t.Errorf("%s", got)
	}
	if got := LVMUUID(vg, lv, LayerPool); got != plain+"-tpool" {
		t.Errorf("%s", got)
	}
	g, v, layer, ok := SplitLVMUUID(plain + "-real")
	if !ok || g != strings.ReplaceAll(vg, "-", "") || v != strings.ReplaceAll(lv, "-", "") || layer != "real" {
		t.Errorf("%q %q %q %v", g, v, layer, ok)
	}
	for _, uuid := range []string{"", "LVM-", plain[:67], plain + "x", "CRYPT-LUKS2-" + plain, vg} {
		if _, _, _, ok := SplitLVMUUID(uuid); ok {
			t.Errorf("%q is LVM's", uuid)
		}
	}
}

func TestErrorNamesWhat(t *testing.T) {
	err := error(&Error{Op: "message x", Device: "LVM-y", Err: ErrNotFound})
	if !errors.Is(err, ErrNotFound) || err.Error() != "device-mapper: LVM-y: message x: no such device-mapper device" {
		t.Error(err)
	}
}
