package vmstate

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"cbt/internal/testtool"
	"cbt/sparse"
)

// machine is a running QEMU with its monitor (QMP).
type machine struct {
	t   testing.TB
	in  io.WriteCloser
	out *bufio.Scanner
	dir string
}

func start(t testing.TB, args ...string) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir()}
	args = append([]string{"-accel", "tcg", "-nodefaults", "-vga", "none", "-display", "none", "-qmp", "stdio"}, args...)
	cmd := exec.Command(testtool.Need(t, "qemu-system-x86_64"), args...)
	cmd.Dir, cmd.Stderr = m.dir, os.Stderr
	var err error
	if m.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		watchdog.Stop()
		m.in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	m.out = bufio.NewScanner(out)
	m.out.Buffer(nil, 1<<20)
	m.do("qmp_capabilities", nil)
	return m
}

func (m *machine) do(command string, args any) map[string]any {
	m.t.Helper()
	request := map[string]any{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	if err := json.NewEncoder(m.in).Encode(request); err != nil {
		m.t.Fatal(err)
	}
	for m.out.Scan() {
		var reply struct {
			Return any
			Error  *struct{ Desc string }
		}
		if err := json.Unmarshal(m.out.Bytes(), &reply); err != nil {
			m.t.Fatal(err)
		}
		if reply.Error != nil {
			m.t.Fatalf("%s: %s", command, reply.Error.Desc)
		}
		if reply.Return != nil {
			r, _ := reply.Return.(map[string]any)
			return r
		}
	}
	m.t.Fatalf("%s: QEMU has ended: %v", command, m.out.Err())
	return nil
}

// until asks until the status is want.
func (m *machine) until(command, want string) {
	m.t.Helper()
	for range 600 {
		status := m.do(command, nil)["status"]
		if status == want {
			return
		}
		if status == "failed" {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	m.t.Fatalf("%s does not become %s", command, want)
}

func (m *machine) memory(size int) []byte {
	m.t.Helper()
	m.do("pmemsave", map[string]any{"val": 0, "size": size, "filename": "ram"})
	b, err := os.ReadFile(filepath.Join(m.dir, "ram"))
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

// A real QEMU goes on from the canonical stream, whatever the state was made
// as: with the RAM of the state, and a program that counts on.
func TestQEMUResumes(t *testing.T) {
	plain := unpacked(t, "plain.state")
	for name, c := range map[string]struct{ state, ram []byte }{
		"plain":      {plain, unpacked(t, "plain.state.ram")},
		"background": {unpacked(t, "background.state"), unpacked(t, "background.state.ram")},
		"xbzrle":     {unpacked(t, "xbzrle.state"), unpacked(t, "xbzrle.state.ram")},
		"mapped-ram": {mappedRAM(t, open(t, plain, Options{}), nil), unpacked(t, "plain.state.ram")},
		"no footers": {unpacked(t, "bare.state"), unpacked(t, "bare.state.ram")},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, c.state, Options{})
			path := filepath.Join(t.TempDir(), "state")
			if err := os.WriteFile(path, stream(t, s), 0o600); err != nil {
				t.Fatal(err)
			}
			firmware := filepath.Join(t.TempDir(), "firmware")
			if err := os.WriteFile(firmware, content(t, s.Block("pc.bios")), 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"-S", "-M", "pc-i440fx-7.2", "-m", "1", "-bios", firmware, "-incoming", "exec:cat " + path}
			if name == "no footers" {
				args = append(args, "-global", "migration.send-section-footer=off", "-global", "migration.send-configuration=off")
			}
			m := start(t, args...)
			m.until("query-status", "paused")
			got := m.memory(1 << 20)
			if !bytes.Equal(got[:vgaHole], c.ram[:vgaHole]) {
				t.Error("the RAM of the machine is not that of the state")
			}
			m.do("cont", nil)
			time.Sleep(300 * time.Millisecond)
			m.do("stop", nil)
			if then := m.memory(1 << 20); bytes.Equal(then[0x20000:0x30000], got[0x20000:0x30000]) {
				t.Error("the machine does not count on")
			}
		})
	}
}

// Every page of a stopped machine is what QEMU's own pmemsave says.
func TestPmemsave(t *testing.T) {
	const size = 64 << 20
	fill := make([]byte, 40<<20)
	rnd := rand.New(rand.NewPCG(1, 2))
	for at := 0; at < len(fill); at += 4096 {
		switch rnd.IntN(3) {
		case 0:
			for i := range 4096 {
				fill[at+i] = byte(rnd.Uint32())
			}
		case 1:
			fill[at+rnd.IntN(4096)] = 1
		}
	}
	path := filepath.Join(t.TempDir(), "fill")
	if err := os.WriteFile(path, fill, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ machine, capability string }{
		{"pc", ""}, {"q35", "compress"}, {"pc", "background-snapshot"},
	} {
		t.Run(c.machine+c.capability, func(t *testing.T) {
			m := start(t, "-M", c.machine, "-m", fmt.Sprint(size>>20), "-device", "loader,addr=0x1000000,force-raw=on,file="+path)
			time.Sleep(time.Second)
			m.do("stop", nil)
			want := m.memory(size)
			if c.capability != "" {
				m.do("migrate-set-capabilities", map[string]any{"capabilities": []any{map[string]any{"capability": c.capability, "state": true}}})
			}
			m.do("migrate-set-parameters", map[string]any{"max-bandwidth": 1 << 30})
			m.do("migrate", map[string]any{"uri": "exec:cat>state"})
			m.until("query-migrate", "completed")
			f, err := os.Open(filepath.Join(m.dir, "state"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			s, err := Open(f, info.Size(), Options{Temp: temp(t)})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			got := content(t, s.Block("pc.ram"))
			for at := 0; at < size; at += 4096 {
				if !bytes.Equal(got[at:][:4096], want[at:][:4096]) && (at < vgaHole || at >= vgaHoleEnd) {
					t.Errorf("page at 0x%x differs", at)
				}
			}
			zero := int64(0)
			for at := 0; at < size; at += 4096 {
				if sparse.IsZero(got[at:][:4096]) {
					zero++
				}
			}
			if b := s.Block("pc.ram"); b.Stored() != b.Pages()-zero {
				t.Errorf("%d pages stored, %d of %d are zero", b.Stored(), zero, b.Pages())
			}
		})
	}
}
