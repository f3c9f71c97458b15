package cbt

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cbt/internal/testtool"
	"cbt/sparse"
)

var update = flag.Bool("update", false, "write the golden files and the dump in docs/delta-format.md anew")

const specification = "../docs/delta-format.md"

// smallest is the example of section 10 of the specification.
func smallest(t *testing.T) []byte {
	m := make(img, 5000)
	for i := range 4096 {
		m[i] = 'A'
	}
	at := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	h := Header{Version: Version, Consistency: Crash, Instant: &at, Streams: []Stream{{Name: "disk/0", Size: 5000, To: "raw:1", Full: true}}}
	return mustWrite(t, h, []Source{{New: m}}, Options{})
}

// dumpLabels returns label and length of each part of the smallest delta, as the dump shows them.
func dumpLabels(b []byte) []struct {
	label string
	n     int
} {
	n := func(at int) int { return int(le.Uint32(b[at:])) }
	header := 11
	table := header + 8 + n(header+4)
	return []struct {
		label string
		n     int
	}{
		{"magic frame: an empty LZ4 frame", 11},
		{"header: type 0", 4}, {"bytes that follow", 4}, {"JSON", n(header+4) - 4}, {"CRC with number 0", 4},
		{"table: type 1", 4}, {"bytes that follow", 4}, {"stream 0", 4}, {"2 extents", 4}, {"no old CRCs", 4},
		{"4,096 bytes of payload", 4}, {"its CRC", 4}, {"length of the data frame", 4},
		{"extent: offset 0", 8}, {"4,096 bytes, data", 8}, {"extent: offset 4,096", 8}, {"904 bytes, zero", 8},
		{"CRC with number 1", 4},
		{"data frame: magic and descriptor", 7}, {"block length, compressed", 4}, {"block", n(table+28) - 15}, {"end mark", 4},
		{"leaf: type 2", 4}, {"bytes that follow", 4}, {"first chunk 0", 8}, {"1 entry", 4}, {"reserved", 4},
		{"entry: offset of the table", 8}, {"image offset 0", 8}, {"to 5,000", 8}, {"stream 0", 4},
		{"length of the table", 4}, {"length of the data frame", 4}, {"CRC of the table", 4}, {"CRC with number 2", 4},
		{"root: type 3", 4}, {"bytes that follow", 4}, {"1 chunk", 8}, {"1 leaf", 4}, {"1 stream", 4},
		{"leaf: its offset", 8}, {"image offset 0", 8}, {"stream 0", 4}, {"1 entry", 4}, {"CRC of the leaf", 4}, {"reserved", 4},
		{"totals: 1 chunk", 8}, {"4,096 bytes of data", 8}, {"904 bytes of zeros", 8}, {"0 bytes checked", 8}, {"CRC with number 3", 4},
		{"trailer: type 4", 4}, {"bytes that follow", 4}, {"CBTDELTA", 8}, {"offset of the root", 8}, {"4,096 bytes of payload", 8},
		{"number 4", 8}, {"CRC of the payload", 4}, {"reserved", 4}, {"SHA-256 of all before the trailer", 32}, {"CRC with number 4", 4},
	}
}

func dump(b []byte) string {
	var out strings.Builder
	at := 0
	for _, part := range dumpLabels(b) {
		for i := 0; i < part.n; i += 16 {
			row := b[at+i : at+min(i+16, part.n)]
			line := fmt.Sprintf("%04x  % -48x", at+i, row)
			if part.label == "JSON" {
				line += " " + string(row)
			} else if i == 0 {
				line += " " + part.label
			}
			out.WriteString(strings.TrimRight(line, " ") + "\n")
		}
		at += part.n
	}
	return out.String()
}

func TestSpecificationDump(t *testing.T) {
	text, err := os.ReadFile(specification)
	if err != nil {
		t.Fatal(err)
	}
	const begin = "```text\n"
	before, rest, ok := strings.Cut(string(text), begin)
	if !ok {
		before, rest = string(text), "```\n"
	}
	shown, after, _ := strings.Cut(rest, "```\n")
	if *update {
		page := before + begin + dump(smallest(t)) + "```\n" + after
		if err := os.WriteFile(specification, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	var b []byte
	for _, line := range strings.Split(strings.TrimSpace(shown), "\n") {
		if at, err := strconv.ParseUint(line[:4], 16, 32); err != nil || int(at) != len(b) {
			t.Fatalf("line does not continue at %04x: %s", len(b), line)
		}
		for _, f := range strings.Fields(line[6:min(len(line), 54)]) {
			v, err := strconv.ParseUint(f, 16, 8)
			if err != nil {
				t.Fatalf("%v in: %s", err, line)
			}
			b = append(b, byte(v))
		}
	}
	if !bytes.Equal(b, smallest(t)) {
		t.Fatal("the dump in the specification is not what Write writes")
	}
	if _, _, err := Verify(context.Background(), bytes.NewReader(b), VerifyOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestDataFrameHeader(t *testing.T) {
	testtool.Need(t, "lz4")
	for _, payload := range [][]byte{[]byte("x"), bytes.Repeat([]byte("ab"), maxPayload/2), newImg(rand.New(rand.NewPCG(1, 1)), 70000)} {
		b, err := appendDataFrame(nil, payload)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("lz4", "-dc")
		cmd.Stdin = bytes.NewReader(b)
		got, err := cmd.Output()
		if err != nil || !bytes.Equal(got, payload) {
			t.Fatalf("lz4 -dc of a frame of %d bytes: %d bytes, %v", len(payload), len(got), err)
		}
	}
}

// TestStockTools: lz4 -dc of a whole delta gives its payload, and file recognises it.
func TestStockTools(t *testing.T) {
	testtool.Need(t, "lz4")
	testtool.Need(t, "file")
	r := rand.New(rand.NewPCG(7, 7))
	h := newHistory(t, r, 2, 3<<20)
	path := filepath.Join(t.TempDir(), "x.cbt")
	for i, d := range h.deltas {
		if err := os.WriteFile(path, h.files[i], 0o600); err != nil {
			t.Fatal(err)
		}
		var want []byte
		for p, err := range d.parts(0, 0, d.Header.Streams[0].Size) {
			if err != nil {
				t.Fatal(err)
			}
			if !p.zero {
				want = append(want, h.states[i][p.off:p.end()]...)
			}
		}
		got, err := exec.Command("lz4", "-dc", path).Output()
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("lz4 -dc: %d bytes, want %d; %v", len(got), len(want), err)
		}
		if int64(len(want)) != d.Payload() {
			t.Fatalf("payload %d, trailer says %d", len(want), d.Payload())
		}
		if got := testtool.Run(t, "file", "-b", path); !strings.Contains(got, "LZ4 compressed data") {
			t.Fatalf("file: %s", got)
		}
	}
}

// useful returns what a reader that does not look at every byte makes of b: the content, or an
// error.
func useful(b []byte) (content []byte, err error) {
	d, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	s, err := NewStack(Layer{d, 0})
	if err != nil {
		return nil, err
	}
	content = make([]byte, s.Size())
	_, err = sparse.ReadFull(s, content, 0)
	return content, err
}

// smallChain returns a full delta, and one with data, zeros, checks and growth. Both are small
// enough to try every bit of them.
func smallChain(t *testing.T) [][]byte {
	old := img(bytes.Repeat([]byte("old "), 10000))
	m := img(bytes.Repeat([]byte("old "), 11000))
	copy(m[9000:], "new")
	clear(m[16384:24576])
	full := Stream{Name: "disk/0", Size: old.Size(), To: "a", Full: true}
	next := Stream{Name: "disk/0", Size: m.Size(), To: "b", From: &Base{"a", old.Size()}}
	return [][]byte{
		mustWrite(t, Header{Version: Version, Consistency: Crash, Streams: []Stream{full}}, []Source{{New: old}}, Options{}),
		mustWrite(t, Header{Version: Version, Consistency: Crash, Streams: []Stream{next}}, []Source{{Old: old, New: m, Changed: m.Extents(0, m.Size())}}, Options{}),
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	for _, b := range append(smallChain(t), smallest(t)) {
		for bit := range len(b) * 8 {
			c := bytes.Clone(b)
			c[bit/8] ^= 1 << (bit % 8)
			if _, _, err := Verify(context.Background(), bytes.NewReader(c), VerifyOptions{Workers: 1}); err == nil {
				t.Fatalf("bit %d of byte %d flipped: verified", bit%8, bit/8)
			} else if f := (*sparse.FormatError)(nil); !errors.As(err, &f) && !errors.As(err, new(*UnknownFeatureError)) {
				t.Fatalf("bit %d of byte %d: error of type %T: %v", bit%8, bit/8, err, err)
			}
		}
	}
}

// Reads at random offsets must never give other bytes than those that were written.
func TestFlippedBitsNeverChangeContent(t *testing.T) {
	b := smallest(t)
	want, err := useful(b)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(b) * 8 {
		c := bytes.Clone(b)
		c[bit/8] ^= 1 << (bit % 8)
		if got, err := useful(c); err == nil && !bytes.Equal(got, want) {
			t.Fatalf("bit %d of byte %d flipped: other content", bit%8, bit/8)
		}
	}
}

func TestEveryCutIsFound(t *testing.T) {
	for _, b := range append(smallChain(t), smallest(t)) {
		for n := range len(b) {
			if _, _, err := Verify(context.Background(), bytes.NewReader(b[:n]), VerifyOptions{Workers: 1}); !errors.Is(err, ErrTruncated) {
				t.Fatalf("cut at %d of %d: %v", n, len(b), err)
			}
			if _, err := Open(bytes.NewReader(b[:n]), int64(n)); err == nil {
				t.Fatalf("cut at %d of %d: opened", n, len(b))
			}
		}
		for _, tail := range []string{"\x00", "x", string(b), string(magicFrame)} {
			if _, _, err := Verify(context.Background(), bytes.NewReader(append(bytes.Clone(b), tail...)), VerifyOptions{}); err == nil {
				t.Fatalf("%d bytes after the trailer: verified", len(tail))
			}
			if tail != string(b) {
				if _, err := Open(bytes.NewReader(append(bytes.Clone(b), tail...)), int64(len(b)+len(tail))); err == nil {
					t.Fatalf("%d bytes after the trailer: opened", len(tail))
				}
			}
		}
	}
}

// chunksOf cuts a delta into its frames.
func chunksOf(t *testing.T, b []byte) (chunks [][]byte, before, after []byte) {
	t.Helper()
	d, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	end := int64(0)
	for k := range d.root.chunks {
		ref, err := d.ref(k)
		if err != nil {
			t.Fatal(err)
		}
		if k == 0 {
			before = b[:ref.off]
		}
		end = ref.off + int64(ref.tableLen+ref.dataLen)
		chunks = append(chunks, b[ref.off:end])
	}
	return chunks, before, b[end:]
}

func TestMovedChunksAreFound(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	m := make(img, 5<<20)
	for i := range m {
		m[i] = byte(r.Uint32())
	}
	b := mustWrite(t, Header{Version: Version, Consistency: Crash, Streams: []Stream{{Name: "disk/0", Size: m.Size(), Full: true}}}, []Source{{New: m}}, Options{})
	chunks, before, after := chunksOf(t, b)
	if len(chunks) != 5 {
		t.Fatalf("%d chunks", len(chunks))
	}
	for name, order := range map[string][]int{
		"swapped": {0, 2, 1, 3, 4}, "repeated": {0, 1, 1, 2, 3, 4}, "missing": {0, 1, 3, 4}, "last missing": {0, 1, 2, 3}, "first missing": {1, 2, 3, 4}, "right": {0, 1, 2, 3, 4},
	} {
		c := bytes.Clone(before)
		for _, i := range order {
			c = append(c, chunks[i]...)
		}
		c = append(c, after...)
		_, _, err := Verify(context.Background(), bytes.NewReader(c), VerifyOptions{})
		if (err == nil) != (name == "right") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSameBytesWhateverTheWorkers(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 9))
		old := newImg(r, 3<<20)
		m := old.resized(r)
		m.scribble(r, 30)
		h := Header{Version: Version, Consistency: Crash, Streams: []Stream{{Name: "disk/0", Size: m.Size(), To: "b", From: &Base{"a", old.Size()}}}}
		changed := changedIn(r, old, m)
		var want []byte
		for _, workers := range []int{1, 2, 3, 16} {
			got := mustWrite(t, h, []Source{{Old: old, New: m, Changed: changed}}, Options{Workers: workers})
			if want == nil {
				want = got
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("seed %d: %d workers write other bytes than 1", seed, workers)
			}
		}
	}
}

// A chunk ends at 1 MiB of payload, or when a 4,097th extent would follow.
func TestChunksCloseWhereTheSpecificationSays(t *testing.T) {
	m := make(img, 12000*2*BlockSize)
	zeros := sparse.Seq(func(yield func(sparse.Extent, error) bool) {
		for i := range int64(12000) {
			if !yield(sparse.Extent{Off: i * 2 * BlockSize, Len: BlockSize, Kind: sparse.Zero}, nil) {
				return
			}
		}
	})
	h := Header{Version: Version, Consistency: Crash, Streams: []Stream{{Name: "disk/0", Size: m.Size(), From: &Base{"a", m.Size()}}}}
	check := func(b []byte, extents, payload []int) {
		t.Helper()
		d, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if int(d.root.chunks) != len(extents) {
			t.Fatalf("%d chunks, want %d", d.root.chunks, len(extents))
		}
		for k := range extents {
			tab, err := d.table(uint64(k))
			if err != nil {
				t.Fatal(err)
			}
			if len(tab.extents) != extents[k] || tab.payload != payload[k] {
				t.Errorf("chunk %d: %d extents, %d bytes, want %d and %d", k, len(tab.extents), tab.payload, extents[k], payload[k])
			}
		}
	}
	check(mustWrite(t, h, []Source{{New: m, Changed: zeros}}, Options{}), []int{4096, 4096, 3808}, []int{0, 0, 0})

	for i := range m {
		m[i] = 1
	}
	data := sparse.Seq(func(yield func(sparse.Extent, error) bool) {
		for i := range int64(600) {
			if !yield(sparse.Extent{Off: i * 2 * BlockSize, Len: BlockSize, Kind: sparse.Data}, nil) {
				return
			}
		}
	})
	check(mustWrite(t, h, []Source{{New: m, Changed: data}}, Options{}), []int{256, 256, 88}, []int{maxPayload, maxPayload, 88 * BlockSize})
}

func TestIndexOfManyLeavesAndItsSpill(t *testing.T) {
	const chunks = 2*leafEntries + 5
	var b bytes.Buffer
	h := Header{Version: Version, Consistency: Crash, Streams: []Stream{{Name: "disk/0", Size: 1 << 40, To: "b", From: &Base{"a", 1 << 40}}}}
	w, err := newWriter(&b, h)
	if err != nil {
		t.Fatal(err)
	}
	w.index.limit = leafEntries*leafEntrySize + leafEntrySize/2
	for k := range int64(chunks) {
		if err := w.chunk(&table{extents: []extent{{off: k << 20, n: BlockSize, zero: true}}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.close(); err != nil {
		t.Fatal(err)
	}
	if w.index.file == nil {
		t.Fatal("the index was not spilled")
	}
	if _, _, err := Verify(context.Background(), bytes.NewReader(b.Bytes()), VerifyOptions{}); err != nil {
		t.Fatal(err)
	}
	d, err := Open(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []int64{0, 1, leafEntries - 1, leafEntries, 2*leafEntries - 1, 2 * leafEntries, chunks - 1} {
		got, err := sparse.Collect(d.extents(0, k<<20, k<<20+10*BlockSize))
		if err != nil || len(got) != 1 || got[0] != (sparse.Extent{Off: k << 20, Len: BlockSize, Kind: sparse.Zero}) {
			t.Errorf("chunk %d: %v, %v", k, got, err)
		}
	}
}
