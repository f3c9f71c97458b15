package vmstate

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cbt/internal/testqemu"
	"cbt/sparse"
)

type object = map[string]any

// newQEMU starts a QEMU that supports mapped-ram and file:.
func newQEMU(t *testing.T, more ...string) *testqemu.Machine {
	t.Helper()
	if testing.Short() {
		t.Skip("short: several machines")
	}
	return testqemu.StartProgram(t, testqemu.Newer(t), append([]string{"-M", "pc", "-m", fmt.Sprint(filledRAM >> 20), "-rtc", "clock=vm"}, more...)...)
}

// stoppedMachine returns a machine that has run for a moment, with its memory filled.
func stoppedMachine(t *testing.T, more ...string) *testqemu.Machine {
	t.Helper()
	m := newQEMU(t, append(more, "-device", fillFile(t, 40<<20))...)
	time.Sleep(time.Second)
	m.Do("stop", nil)
	return m
}

// backed returns options that keep the machine's memory in a file.
func backed(file, share string) []string {
	return []string{"-object", fmt.Sprintf("memory-backend-file,id=pc.ram,share=%s,mem-path=%s,size=%d", share, file, filledRAM), "-machine", "memory-backend=pc.ram"}
}

// setCapabilities turns capabilities on or off.
func setCapabilities(m *testqemu.Machine, on bool, names ...string) {
	list := []object{}
	for _, name := range names {
		list = append(list, object{"capability": name, "state": on})
	}
	m.Do("migrate-set-capabilities", object{"capabilities": list})
}

// In every kind of file that QEMU writes, a stopped machine's RAM is what pmemsave writes, and all
// of these files have one canonical stream.
func TestNewQEMU(t *testing.T) {
	first := stoppedMachine(t)
	want := first.Memory(filledRAM)
	first.Migrate("exec:cat>state")
	first.Kill()
	canonical := stream(t, openFile(t, filepath.Join(first.Dir, "state")))
	for _, c := range []struct {
		name, uri    string
		capabilities []string
		offset       int64
		parameters   object
	}{
		{name: "exec", uri: "exec:cat>state"},
		{name: "file", uri: "file:state"},
		{name: "file at an offset", uri: "file:state,offset=12345", offset: 12345},
		{name: "mapped-ram", capabilities: []string{"mapped-ram"}},
		{name: "mapped-ram at an offset", uri: "file:state,offset=12345", offset: 12345, capabilities: []string{"mapped-ram"}},
		{name: "mapped-ram, zero pages stored", capabilities: []string{"mapped-ram"}, parameters: object{"zero-page-detection": "none"}},
		{name: "mapped-ram, zero pages found by the main thread", capabilities: []string{"mapped-ram"}, parameters: object{"zero-page-detection": "legacy"}},
		{name: "multifd", capabilities: []string{"mapped-ram", "multifd"}},
		{name: "multifd at an offset", uri: "file:state,offset=12345", offset: 12345, capabilities: []string{"mapped-ram", "multifd"}, parameters: object{"multifd-channels": 5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.uri == "" {
				c.uri = "file:state"
			}
			// QEMU saves a machine only once: this is the first one again.
			m := newQEMU(t, "-S", "-incoming", "defer")
			load(m, "exec:cat "+filepath.Join(first.Dir, "state"))
			if c.parameters != nil {
				m.Do("migrate-set-parameters", c.parameters)
			}
			m.Migrate(c.uri, c.capabilities...)
			s := openAt(t, filepath.Join(m.Dir, "state"), c.offset)
			ram := s.Block("pc.ram")
			samePhysical(t, ram, want)
			if c.parameters["zero-page-detection"] == "none" {
				if ram.Stored() != ram.Pages() {
					t.Errorf("%d of %d pages stored, want all", ram.Stored(), ram.Pages())
				}
			} else {
				sameStored(t, ram)
			}
			container := "stream"
			if c.capabilities != nil {
				container = "mapped-ram"
			}
			if s.Container != container || len(s.Devices) < 20 || s.Complete() != nil {
				t.Errorf("%s, %d devices, %v", s.Container, len(s.Devices), s.Complete())
			}
			if !bytes.Equal(stream(t, s), canonical) {
				t.Error("another canonical stream")
			}
		})
	}
}

// QEMU writes the bitmaps of mapped-ram at the end of RAM, which a background
// snapshot does not have: all of RAM would be zero.
func TestNewQEMUBackground(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("userfaultfd needs root")
	}
	m := stoppedMachine(t)
	want := m.Memory(filledRAM)
	m.Migrate("file:state", "background-snapshot")
	samePhysical(t, openFile(t, filepath.Join(m.Dir, "state")).Block("pc.ram"), want)

	m = stoppedMachine(t)
	m.Migrate("file:state", "background-snapshot", "mapped-ram")
	b, err := os.ReadFile(filepath.Join(m.Dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	var fe *sparse.FormatError
	if _, err := Open(bytes.NewReader(b), int64(len(b)), Options{}); !errors.As(err, &fe) {
		t.Errorf("mapped-ram without its bitmaps: %v", err)
	}
}

func TestNewQEMUIgnoreShared(t *testing.T) {
	m := stoppedMachine(t, backed("memory.img", "on")...)
	m.Migrate("file:state", "x-ignore-shared")
	for _, b := range openFile(t, filepath.Join(m.Dir, "state")).Blocks {
		if b.Shared != (b.Name == "pc.ram") {
			t.Errorf("%s: shared %v", b.Name, b.Shared)
		}
	}
}

func TestNewQEMUCore(t *testing.T) {
	m := stoppedMachine(t, "-smp", "2")
	m.Do("dump-guest-memory", object{"paging": false, "protocol": "file:dump"})
	m.Migrate("file:state", "mapped-ram")
	s := openFile(t, filepath.Join(m.Dir, "state"))
	ranges, err := s.RAMRanges("")
	if err != nil {
		t.Fatal(err)
	}
	core, err := s.Core(ranges, nil)
	if err != nil || core.NoCPUs != nil {
		t.Fatal(err, core.NoCPUs)
	}
	if n, all := sameCore(t, core, filepath.Join(m.Dir, "dump")); n != all {
		t.Errorf("%d bytes are in both, of %d", n, all)
	}
}

// QEMU loads a state of its own that was written again: the RAM is the same, and the machine runs
// on.
func TestNewQEMULoads(t *testing.T) {
	m := stoppedMachine(t)
	want := m.Memory(filledRAM)
	m.Migrate("file:state", "mapped-ram")
	m.Kill()
	mapped := openFile(t, filepath.Join(m.Dir, "state"))
	dir := t.TempDir()
	write := func(name string, how func(*os.File) error) string {
		f, err := os.Create(filepath.Join(dir, name))
		if err == nil {
			err = errors.Join(how(f), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return f.Name()
	}
	asStream := write("stream", func(f *os.File) error { return mapped.WriteStream(f, nil) })
	asMapped := write("mapped", func(f *os.File) error { return mapped.WriteMapped(f, nil) })
	again := write("again", func(f *os.File) error { return openFile(t, asStream).WriteMapped(f, nil) })
	dirty := filepath.Join(dir, "dirty")
	if err := os.WriteFile(dirty, bytes.Repeat([]byte{0xff}, filledRAM), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, uri    string
		capabilities []string
		args         []string
	}{
		{"mapped-ram", "file:" + asMapped, []string{"mapped-ram"}, nil},
		{"mapped-ram by multifd", "file:" + asMapped, []string{"mapped-ram", "multifd"}, nil},
		{"mapped-ram of a stream", "file:" + again, []string{"mapped-ram"}, nil},
		{"stream", "exec:cat " + asStream, nil, nil},
		// A stream clears what was in memory before. QEMU does not clear it when it loads
		// mapped-ram.
		{"stream into used memory", "file:" + asStream, nil, backed(dirty, "off")},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newQEMU(t, append(c.args, "-S", "-incoming", "defer")...)
			load(m, c.uri, c.capabilities...)
			sameMemory(t, m.Memory(filledRAM), want)
			m.Do("cont", nil)
			m.Until("query-status", "running")
		})
	}
}

// load loads a state into a machine that was started with -incoming defer.
func load(m *testqemu.Machine, uri string, capabilities ...string) {
	setCapabilities(m, true, capabilities...)
	m.Do("migrate-incoming", object{"uri": uri})
	m.Until("query-migrate", "completed")
}

// States of QEMU 7.2 run on in a newer QEMU, as mapped-ram that no QEMU has written.
func TestNewQEMUResumes(t *testing.T) {
	for _, name := range []string{"plain.state", "xbzrle.state", "background.state"} {
		t.Run(name, func(t *testing.T) {
			s := open(t, unpacked(t, name), Options{})
			dir := t.TempDir()
			f, err := os.Create(filepath.Join(dir, "mapped"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := s.WriteMapped(f, nil); err != nil {
				t.Fatal(err)
			}
			firmware := filepath.Join(dir, "firmware")
			if err := os.WriteFile(firmware, content(t, s.Block("pc.bios")), 0o600); err != nil {
				t.Fatal(err)
			}
			m := newQEMU(t, "-M", "pc-i440fx-7.2", "-m", "1", "-bios", firmware, "-S", "-incoming", "defer")
			load(m, "file:"+f.Name(), "mapped-ram")
			goesOn(t, m, unpacked(t, name+".ram"))
		})
	}
}
