package vmstate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"cbt/sparse"
)

// A stream that is cut anywhere is refused, or reported as having no end that could be judged.
func TestCutAtEveryOffset(t *testing.T) {
	for _, name := range []string{"plain.state", "old.state", "xbzrle.state"} {
		b := unpacked(t, name)
		makeTemp := temp(t)
		whole := open(t, b, Options{})
		inside := map[int]bool{} // inside a page: one byte more or less makes no difference
		for _, x := range whole.Blocks {
			for i := range x.Pages() {
				if pl := x.index.get(i); pl != 0 && pl&inTemp == 0 {
					for at := range 4096 - 64 {
						inside[int(pl)+32+at] = at%256 != 0
					}
				}
			}
		}
		text := bytes.LastIndexByte(b, vmDescription) + 64
		for n := range b {
			if testing.Short() && n%5 != 0 && n > 4096 {
				continue // make fewer cuts
			}
			if inside[n] || n > text && n%16 != 0 || name != "plain.state" && n%37 != 0 {
				continue
			}
			s, err := Open(bytes.NewReader(b[:n]), int64(n), Options{Temp: makeTemp})
			var fe *sparse.FormatError
			switch {
			case err != nil && s != nil:
				t.Fatalf("%s cut at %d: a state and an error", name, n)
			case err == nil && s.Complete() == nil:
				t.Fatalf("%s cut at %d is taken for whole", name, n)
			case err == nil:
				s.Close()
			case !errors.As(err, &fe) && !(n < 4 && errors.Is(err, ErrNotState)):
				t.Fatalf("%s cut at %d: %v", name, n, err)
			}
		}
	}
}

// A tiny stream, by hand.
type hand []byte

func (h *hand) bytes(b ...byte)  { *h = append(*h, b...) }
func (h *hand) u16(v uint16)     { *h = binary.BigEndian.AppendUint16(*h, v) }
func (h *hand) u32(v uint32)     { *h = binary.BigEndian.AppendUint32(*h, v) }
func (h *hand) u64(v uint64)     { *h = binary.BigEndian.AppendUint64(*h, v) }
func (h *hand) counted(s string) { *h = append(append(*h, byte(len(s))), s...) }

func (h *hand) header() {
	h.u32(streamMagic)
	h.u32(streamVersion)
	h.bytes(vmConfiguration)
	h.u32(4)
	*h = append(*h, "none"...)
}

// ram starts RAM with blocks of these lengths, named a, b, ...
func (h *hand) ram(lengths ...uint64) {
	h.bytes(vmStart)
	h.u32(2)
	h.counted("ram")
	h.u32(0)
	h.u32(ramVersion)
	total := uint64(0)
	for _, n := range lengths {
		total += n
	}
	h.u64(total | ramMemSize)
	for i, n := range lengths {
		h.counted(string(rune('a' + i)))
		h.u64(n)
	}
	h.u64(ramEOS)
}

func (h *hand) part(kind byte, records func()) {
	h.bytes(kind)
	h.u32(2)
	records()
	h.u64(ramEOS)
}

// end ends RAM and describes one device with the fields given as text.
func (h *hand) end(payload []byte, fields string) {
	h.part(vmEnd, func() {})
	h.bytes(vmFull)
	h.u32(7)
	h.counted("dev")
	h.u32(0)
	h.u32(1)
	*h = append(*h, payload...)
	h.bytes(vmEOF, vmDescription)
	text := `{"page_size":4096,"devices":[{"name":"dev","instance_id":0,"version":1,` + fields + `}]}`
	h.u32(uint32(len(text)))
	*h = append(*h, text...)
}

func (h hand) open(t testing.TB) (*State, error) {
	return Open(bytes.NewReader(h), int64(len(h)), Options{Temp: temp(t)})
}

func TestLastRecordWins(t *testing.T) {
	var h hand
	h.header()
	h.ram(8192, 4096)
	page := func(c byte) []byte { return bytes.Repeat([]byte{c}, 4096) }
	record := func(word uint64, name string, body ...byte) {
		h.u64(word)
		if name != "" {
			h.counted(name)
		}
		h.bytes(body...)
	}
	h.part(vmPart, func() {
		record(ramPage, "a", page(1)...)
		record(ramPage|ramContinue|4096, "", page(2)...)
		record(ramPage, "b", page(3)...)
	})
	h.part(vmPart, func() {
		record(ramZero|ramContinue, "", 0)
		record(ramPage, "a", page(0)...)
		record(ramXBZRLE|ramContinue|4096, "", 1, 0, 3, 3, 1, 9)
		record(ramXBZRLE|ramContinue, "", 1, 0, 3, 0, 1, 7)
		record(ramXBZRLE|ramContinue|4096, "", 1, 0, 3, 0, 1, 8)
	})
	h.end([]byte("xyz"), `"fields":[{"name":"f","type":"buffer","size":3}]`)
	s, err := h.open(t)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want := append(make([]byte, 4096), page(2)...)
	want[0], want[4096], want[4096+3] = 7, 8, 9
	if a := s.Block("a"); !bytes.Equal(content(t, a), want) || a.Stored() != 2 {
		t.Errorf("a: %d pages", a.Stored())
	}
	if b := s.Block("b"); b.Stored() != 0 || !sparse.IsZero(content(t, b)) {
		t.Error("b is not zero")
	}
	if !slices.Equal(s.Devices, []Device{{"dev", 0, 1, 3}}) {
		t.Error(s.Devices)
	}
}

func TestHostileStreams(t *testing.T) {
	device := func(payload, fields string) func(h *hand) {
		return func(h *hand) { h.ram(4096); h.end([]byte(payload), fields) }
	}
	nest := func(n int) string {
		return `"fields":[` + strings.Repeat(`{"type":"struct","array_len":1000000,"struct":{"fields":[`, n) + strings.Repeat(`]}}`, n) + `]`
	}
	for name, c := range map[string]struct {
		build func(h *hand)
		want  string
	}{
		"total":            {func(h *hand) { h.ram(1 << 62) }, "limit"},
		"lengths overflow": {func(h *hand) { h.ram(1<<63, 1<<63, 8192) }, "bytes left"},
		"no page multiple": {func(h *hand) { h.ram(4097, 4095) }, "multiple"},
		"same name":        {func(h *hand) { h.ram(4096, 4096); (*h)[len(*h)-8-9] = 'a' }, "another block"},
		"offset":           {func(h *hand) { h.ram(4096); h.part(vmPart, func() { h.u64(4096 | ramZero); h.counted("a") }) }, "past the end"},
		"block":            {func(h *hand) { h.ram(4096); h.part(vmPart, func() { h.u64(ramZero); h.counted("z") }) }, "no such RAM block"},
		"continue first":   {func(h *hand) { h.ram(4096); h.part(vmPart, func() { h.u64(ramZero | ramContinue) }) }, "continues"},
		"hook":             {func(h *hand) { h.ram(4096); h.part(vmPart, func() { h.u64(ramHook) }) }, "HOOK"},
		"two kinds":        {func(h *hand) { h.ram(4096); h.part(vmPart, func() { h.u64(ramZero | ramPage) }) }, "exclude"},
		"unknown flag":     {func(h *hand) { h.ram(4096); h.part(vmPart, func() { h.u64(0x400) }) }, "unknown flags"},
		"xbzrle length": {func(h *hand) {
			h.ram(4096)
			h.part(vmPart, func() { h.u64(ramXBZRLE); h.counted("a"); h.bytes(1); h.u16(4097) })
		}, "longer"},
		"xbzrle encoding": {func(h *hand) {
			h.ram(4096)
			h.part(vmPart, func() { h.u64(ramXBZRLE); h.counted("a"); h.bytes(2); h.u16(1) })
		}, "only 1"},
		"compressed length": {func(h *hand) {
			h.ram(4096)
			h.part(vmPart, func() { h.u64(ramCompressed); h.counted("a"); h.u32(1 << 31) })
		}, "longer"},
		"compressed page": {func(h *hand) {
			h.ram(4096)
			h.part(vmPart, func() { h.u64(ramCompressed); h.counted("a"); h.u32(4); h.u32(5) })
		}, "zlib"},
		"RAM twice":       {func(h *hand) { h.ram(4096); h.ram(4096) }, "twice"},
		"postcopy":        {func(h *hand) { h.bytes(vmCommand); h.u16(3); h.u16(16); h.u64(0); h.u64(0) }, "postcopy-advise"},
		"packaged":        {func(h *hand) { h.bytes(vmCommand); h.u16(8); h.u16(4); h.u32(9) }, "packaged"},
		"unknown section": {func(h *hand) { h.bytes(vmStart); h.u32(3); h.counted("nvfio"); h.u32(0); h.u32(1) }, `"nvfio"`},
		"unknown type":    {func(h *hand) { h.bytes(0x33) }, "unknown"},
		"part of nothing": {func(h *hand) { h.bytes(vmPart); h.u32(3) }, "was started"},
		"no RAM":          {func(h *hand) { h.bytes(vmEOF) }, "no RAM"},
		"machine name":    {func(h *hand) { *h = (*h)[:9]; h.u32(1 << 31) }, "longer"},
		"device version":  {device("", `"version":2,"fields":[]`), "version_id"},
		"size":            {device("abc", `"fields":[{"type":"buffer","size":4}]`), "unknown"},
		"huge size":       {device("abc", `"fields":[{"type":"buffer","size":4611686018427387903}]`), "cut"},
		"huge array":      {device("abc", `"fields":[{"type":"buffer","size":1073741825,"array_len":4611686018427387903}]`), "cut"},
		"endless arrays":  {device("abc", nest(60)), "steps"},
		"deep":            {device("abc", nest(300)), "deep"},
		"many fields":     {device("abc", `"fields":[`+strings.Repeat("{},", 300000)+`{}]`), "more than"},
		"not JSON":        {device("abc", `"fields":[[[`), "JSON"},
		"other device":    {device("", `"fields":[],"instance_id":1`), "not in the description"},
	} {
		t.Run(name, func(t *testing.T) {
			var h hand
			h.header()
			c.build(&h)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			s, err := h.open(t)
			runtime.ReadMemStats(&after)
			if err == nil || s != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if strings.Contains(fmt.Sprint(err), "\n") {
				t.Error("an error of more than one line")
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 128<<20 {
				t.Errorf("%d bytes allocated", used)
			}
		})
	}
}

// A machine of 16 TiB whose pages are all zero costs next to nothing.
func TestHugeAndEmpty(t *testing.T) {
	var h hand
	h.header()
	h.ram(DefaultMaxRAM)
	h.end(nil, `"fields":[]`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s, err := h.open(t)
	if err != nil {
		t.Fatal(err)
	}
	extents, err := sparse.Collect(s.Blocks[0].Extents(0, DefaultMaxRAM))
	runtime.ReadMemStats(&after)
	if err != nil || !slices.Equal(extents, []sparse.Extent{{Off: 0, Len: DefaultMaxRAM, Kind: sparse.Hole}}) {
		t.Errorf("%v, %v", extents, err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 20<<20 { // 8 bytes for each 8 MiB that the stream gives as RAM
		t.Errorf("%d bytes allocated", used)
	}
}

// Damaged input to a decompressor is an error, whatever was damaged.
func TestDamagedXZAndLzop(t *testing.T) {
	plain := unpacked(t, "plain.state")
	places := 2000
	if testing.Short() {
		places = 300
	}
	for name, unpacker := range map[string]func(io.Reader) (io.Reader, error){"xz": newXZ, "lzo": newLzop} {
		b := file(t, "plain.state."+name)
		for i := 0; i < len(b); i += 1 + len(b)/places {
			damaged := slices.Clone(b)
			damaged[i] ^= 0x41
			r, err := unpacker(bytes.NewReader(damaged))
			if err != nil {
				continue
			}
			got, err := io.ReadAll(io.LimitReader(r, int64(len(plain))*4))
			if err == nil && !bytes.Equal(got, plain) {
				t.Errorf("%s with a damaged byte %d unpacks to something else", name, i)
			}
		}
	}
	// A block that asks for a dictionary of 4 GiB.
	b := slices.Clone(file(t, "plain.state.xz"))
	header := b[12:][:4*(int(b[12])+1)]
	header[4] = 40
	binary.LittleEndian.PutUint32(header[len(header)-4:], crc32.ChecksumIEEE(header[:len(header)-4]))
	r, err := newXZ(bytes.NewReader(b))
	if err == nil {
		_, err = io.ReadAll(r)
	}
	if err == nil || !strings.Contains(err.Error(), "dictionary") {
		t.Error(err)
	}
}
