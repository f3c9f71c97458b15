package vmstate

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cbt/sparse"
)

// footed is a tiny stream whose sections have footers.
type footed struct{ hand }

func (h *footed) foot(id uint32) {
	h.bytes(vmFooter)
	h.u32(id)
}

// section appends a section of that kind with this payload; name is used in a first section.
func (h *footed) section(kind byte, id uint32, name string, payload ...any) {
	h.bytes(kind)
	h.u32(id)
	if kind == vmStart || kind == vmFull {
		h.counted(name)
		h.u32(0)
		h.u32(1)
	}
	for _, v := range payload {
		switch v := v.(type) {
		case uint16:
			h.u16(v)
		case uint32:
			h.u32(v)
		case uint64:
			h.u64(v)
		case string:
			h.hand = append(h.hand, v...)
		default:
			panic(v)
		}
	}
	h.foot(id)
}

// ram appends the start of RAM with a page of ones, and its end.
func (h *footed) ram(between func()) {
	h.hand.ram(4096)
	h.foot(2)
	between()
	h.hand.part(vmPart, func() {
		h.u64(ramPage)
		h.counted("a")
		h.bytes(bytes.Repeat([]byte{1}, 4096)...)
	})
	h.foot(2)
	h.hand.part(vmEnd, func() {})
	h.foot(2)
}

// end describes devices.
func (h *footed) end(devices string) {
	h.bytes(vmEOF, vmDescription)
	text := `{"page_size":4096,"devices":[` + devices + `]}`
	h.u32(uint32(len(text)))
	h.hand = append(h.hand, text...)
}

// roundTrip opens the stream, and the canonical stream written from it.
func (h *footed) roundTrip(t *testing.T) *State {
	t.Helper()
	s := open(t, h.hand, Options{})
	if got := content(t, s.Blocks[0]); !bytes.Equal(got, bytes.Repeat([]byte{1}, 4096)) {
		t.Error("the RAM is not what was saved")
	}
	again := open(t, stream(t, s), Options{})
	sameState(t, again, s)
	if !bytes.Equal(stream(t, again), stream(t, s)) {
		t.Error("the canonical stream of a canonical stream is another one")
	}
	rest := func(s *State) (all []byte) {
		for _, p := range s.rest.pieces {
			b := make([]byte, p.n)
			if _, err := sparse.ReadFull(s.src, b, p.off); err != nil {
				t.Fatal(err)
			}
			all = append(all, b...)
		}
		return all
	}
	if !bytes.Equal(rest(again), rest(s)) {
		t.Error("what is not RAM has changed")
	}
	return s
}

// TestIterableSections reads what machines of other architectures and passed-through devices write
// between RAM's sections, in the layout of QEMU's sources.
func TestIterableSections(t *testing.T) {
	entries := strings.Repeat("page table entry", 3)
	for name, c := range map[string]struct{ setup, part, end []any }{
		"spapr/htab": {
			[]any{uint32(21)},
			[]any{uint32(0), uint32(7), uint16(3), uint16(9), entries, uint32(0), uint16(0), uint16(1), uint32(0), uint16(0), uint16(0)},
			[]any{uint32(0), uint32(0), uint16(0), uint16(0)},
		},
		"spapr/htab without a table": {[]any{^uint32(0)}, []any{^uint32(0)}, []any{^uint32(0)}},
		"s390-storage_attributes": {
			[]any{uint64(attributesEOS)},
			[]any{uint64(7<<12 | attributesMore), uint64(5), "~\x00\x00\x00\x03", uint64(attributesEOS)},
			[]any{uint64(attributesMore), uint64(0), uint64(attributesDone), uint64(attributesEOS)},
		},
		"0000:00:02.0/vfio": {
			[]any{uint64(vfioSetup), uint64(vfioEnd)},
			[]any{uint64(vfioData), uint64(3), "abc", uint64(vfioInitSent)},
			[]any{uint64(vfioData), uint64(0), uint64(vfioData), uint64(8), "\xff\xff\xff\xff\xef\x10\x00\x01", uint64(vfioEnd)},
		},
		"vfio": {[]any{uint64(vfioSetup), uint64(vfioEnd)}, []any{uint64(vfioEnd)}, []any{uint64(vfioEnd)}},
	} {
		t.Run(name, func(t *testing.T) {
			section, _, _ := strings.Cut(name, " without")
			var h footed
			h.header()
			h.ram(func() {
				h.section(vmStart, 3, section, c.setup...)
				h.section(vmPart, 3, "", c.part...)
			})
			h.section(vmEnd, 3, "", c.end...)
			h.section(vmFull, 9, "dev", "xyz")
			devices := `{"name":"dev","instance_id":0,"version":1,"fields":[{"name":"f","type":"buffer","size":3}]}`
			want := []Device{{"dev", 0, 1, 3}}
			if strings.HasSuffix(section, "vfio") { // its configuration is in a section of its own
				h.section(vmFull, 3, section, "config")
				devices += `,{"name":"` + section + `","instance_id":0,"version":1,"fields":[{"name":"data","type":"buffer","size":6}]}`
				want = append(want, Device{section, 0, 1, 6})
			}
			h.end(devices)
			if s := h.roundTrip(t); !slices.Equal(s.Devices, want) {
				t.Errorf("devices %v, want %v", s.Devices, want)
			}
			for n := range h.hand {
				if s, err := Open(bytes.NewReader(h.hand[:n]), int64(n), Options{}); err == nil && s.Complete() == nil {
					t.Fatalf("cut at %d of %d it is taken for whole", n, len(h.hand))
				}
			}
		})
	}
}

func TestHostileIterableSections(t *testing.T) {
	for want, payload := range map[string][]any{
		"cut":            {uint32(0), uint32(0), uint16(0xffff), uint16(0)},
		"flags":          {uint64(0x10)},
		"flag":           {uint64(0xffffffffef100002)},
		"cut by":         {uint64(vfioData), uint64(1 << 63)},
		"cut by the end": {uint64(attributesMore), ^uint64(0)},
	} {
		name := map[string]string{"cut": "spapr/htab", "flags": "s390-storage_attributes", "flag": "vfio", "cut by": "vfio", "cut by the end": "s390-storage_attributes"}[want]
		var h footed
		h.header()
		h.ram(func() { h.section(vmStart, 3, name, payload...) })
		if _, err := h.open(t); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// TestPointersToNothing reads sections whose arrays of pointers are described by
// their first element, as QEMU up to 9 does.
func TestPointersToNothing(t *testing.T) {
	const null = `{"name":"css","array_len":8,"type":"struct","struct":{},"size":1}`
	const one = `{"name":"css","array_len":8,"type":"struct","struct":{"vmsd_name":"x","version":1,"fields":[{"name":"f","type":"buffer","size":3}]},"size":3}`
	for name, c := range map[string]struct{ payload, field, want string }{
		"nothing":                    {"00000000", null, ""},
		"something later":            {"000abc00000", null, ""},
		"nothing later":              {"abc0000000", one, ""},
		"what looks like its footer": {"000" + "~\x00\x00\x00\x09" + "\x04\x00\x00\x00\x0a\x03dev\x00\x00\x00\x00\x00\x00\x00\x01" + "00000", null, ""},
		"no footer":                  {"", null, "described as a pointer to nothing"},
		"RAM inside":                 {"000~\x00\x00\x00\x09\x01\x00\x00\x00\x0a\x03ram00000", null, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var h footed
			h.header()
			h.ram(func() {})
			h.section(vmFull, 9, "s390_css", "a", c.payload)
			if c.want != "" {
				h.hand = h.hand[:len(h.hand)-5]
			}
			h.section(vmFull, 10, "dev", "xyz")
			h.end(`{"name":"s390_css","instance_id":0,"version":1,"fields":[{"name":"f","type":"bool","size":1},` + c.field + `]},` +
				`{"name":"dev","instance_id":0,"version":1,"fields":[{"name":"f","type":"buffer","size":3}]}`)
			if c.want != "" {
				if _, err := h.open(t); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
				return
			}
			s := h.roundTrip(t)
			if want := []Device{{"s390_css", 0, 1, int64(1 + len(c.payload))}, {"dev", 0, 1, 3}}; !slices.Equal(s.Devices, want) {
				t.Errorf("devices %v, want %v", s.Devices, want)
			}
		})
	}
}

// TestManyFooters limits the cost of byte runs that only look like footers.
func TestManyFooters(t *testing.T) {
	var h footed
	h.header()
	h.ram(func() {})
	const fields = `"fields":[{"name":"css","array_len":2,"type":"struct","struct":{},"size":1}]}`
	var devices []string
	for i := range 40 {
		fake := "~\x00\x00\x00" + string(rune(20+i)) + "\x04\x00\x00\x00\x09\x02d0\x00\x00\x00\x00\x00\x00\x00\x01"
		h.section(vmFull, uint32(20+i), fmt.Sprintf("d%d", i), strings.Repeat(fake, 40))
		devices = append(devices, fmt.Sprintf(`{"name":"d%d","instance_id":0,"version":1,`+fields, i))
	}
	h.end(strings.Join(devices, ","))
	if _, err := h.open(t); err == nil || !strings.Contains(err.Error(), "pointer to nothing") {
		t.Error(err)
	}

	// Megabytes of them.
	h = footed{}
	h.header()
	h.ram(func() {})
	h.section(vmFull, 9, "d0", strings.Repeat("~\x00\x00\x00\x09", 8<<20))
	h.hand = h.hand[:len(h.hand)-5]
	h.end(`{"name":"d0","instance_id":0,"version":1,` + fields)
	start := time.Now()
	if _, err := h.open(t); err == nil || !strings.Contains(err.Error(), "pointer to nothing") {
		t.Error(err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}
