package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cbt/internal/testnbd"
	"cbt/sparse"
)

// patterned is an image of data, zeros and holes.
func patterned(size int, rng *rand.Rand) *memImage {
	m := newMemImage(size)
	for off := 0; off < size; {
		n := min(size-off, memBlock*(1+rng.IntN(40)))
		switch rng.IntN(3) {
		case 0:
			for i := range n {
				m.bytes[off+i] = byte(rng.Uint32())
			}
			m.set(int64(off), int64(n), sparse.Data)
		case 1:
			m.set(int64(off), int64(n), sparse.Zero)
		}
		off += (n + memBlock - 1) &^ (memBlock - 1)
	}
	return m
}

func TestReads(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	m := patterned(9<<20+1234, rng)
	socket, _, _ := serve(t, Limits{}, nil, Export{Name: "a", View: m})
	for _, structured := range []bool{false, true} {
		c := open(t, socket, "a", structured)
		holes := 0
		for range 600 {
			off := rng.Int64N(m.Size())
			n := min(m.Size()-off, 1+rng.Int64N(1<<rng.IntN(23)))
			p := bytes.Repeat([]byte{0xee}, int(n))
			flags := uint16(0)
			if structured && rng.IntN(4) == 0 {
				flags = cmdFlagDF
			}
			chunks, err := c.Do(flags, cmdRead, off, len(p), p)
			if err != nil || !bytes.Equal(p, m.bytes[off:off+n]) {
				t.Fatalf("structured %v: read of %d at %d: %v, or wrong bytes", structured, n, off, err)
			}
			var covered int64
			for _, k := range chunks {
				covered += int64(len(k.Data)) + k.Hole
				if k.Hole > 0 {
					holes++
				}
			}
			if covered != n || flags != 0 && len(chunks) != 1 {
				t.Fatalf("%d chunks of %d bytes for %d, flags %d", len(chunks), covered, n, flags)
			}
		}
		if structured && holes < 100 {
			t.Errorf("%d holes", holes)
		}
	}
}

func TestManyInFlight(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	m := patterned(4<<20, rng)
	m.fail = func(int64) error { time.Sleep(50 * time.Microsecond); return nil } // not inline only
	socket, _, _ := serve(t, Limits{}, nil, Export{Name: "a", View: m})
	c := open(t, socket, "", false)
	const requests = 400
	offs := make([]int64, requests)
	go func() {
		for i := range offs {
			off := int64(i) * 4096
			c.Send(0, cmdRead, uint64(i), uint64(off), 4096, nil)
		}
	}()
	seen := map[uint64]bool{}
	for range requests {
		k, err := c.Receive(4096)
		if err != nil || k.Err != 0 || seen[k.Cookie] || !bytes.Equal(k.Data, m.bytes[k.Cookie*4096:][:4096]) {
			t.Fatalf("reply to %d: %v %v", k.Cookie, err, k.Err)
		}
		seen[k.Cookie] = true
	}
}

func TestErrors(t *testing.T) {
	m, w := newMemImage(100<<20), writableImage{newMemImage(1 << 20)}
	socket, _, _ := serve(t, Limits{}, nil, Export{Name: "ro", View: m}, Export{Name: "rw", View: w})
	for _, structured := range []bool{false, true} {
		tooMuch := eInval
		if structured {
			tooMuch = eOverflow
		}
		ro, rw := open(t, socket, "ro", structured), open(t, socket, "rw", structured)
		for _, c := range []struct {
			client         *testnbd.Client
			flags, command uint16
			off            int64
			n              int
			want           errno
		}{
			{ro, 0, cmdRead, 0, 0, 0},
			{ro, 0, cmdRead, 100 << 20, 0, 0},
			{ro, 0, cmdRead, 100<<20 - 1, 2, eInval},
			{ro, 0, cmdRead, 100<<20 + 1, 0, eInval},
			{ro, 0, cmdRead, -1, 1, eInval},
			{ro, 0, cmdRead, 1<<63 - 1, 1 << 20, eInval},
			{ro, 0, cmdRead, 0, 32<<20 + 1, tooMuch},
			{ro, 0, cmdRead, 0, 32 << 20, 0},
			{ro, cmdFlagFUA, cmdRead, 0, 1, eInval},
			{ro, 1 << 15, cmdRead, 0, 1, eInval},
			{ro, 0, cmdWrite, 0, 512, ePerm},
			{ro, 0, cmdTrim, 0, 512, ePerm},
			{ro, 0, cmdWriteZeroes, 0, 512, ePerm},
			{ro, 0, cmdFlush, 0, 0, 0},
			{ro, 0, cmdFlush, 0, 1, eInval},
			{ro, 0, cmdCache, 0, 1 << 20, 0},
			{ro, 0, cmdCache, 100 << 20, 1, eInval},
			{ro, 0, 8, 0, 1, eInval},
			{ro, 0, 999, 0, 1, eInval},
			{ro, 0, cmdBlockStatus, 0, 0, eInval},
			{rw, cmdFlagFUA, cmdRead, 0, 1, 0},
			{rw, 0, cmdWrite, 1<<20 - 1, 2, eNoSpace},
			{rw, 0, cmdWrite, 1 << 20, 0, 0},
			{rw, 0, cmdWriteZeroes, 1<<20 - 1, 2, eNoSpace},
			{rw, cmdFlagDF, cmdWriteZeroes, 0, 1, eInval},
			{rw, 0, cmdTrim, 1<<20 - 1, 2, eInval},
			{rw, 16, cmdWriteZeroes, 0, 1, eInval}, // fast zero is not offered
			{rw, cmdFlagNoHole, cmdTrim, 0, 1, eInval},
		} {
			p := make([]byte, c.n)
			_, err := c.client.Do(c.flags, c.command, c.off, c.n, p)
			var got testnbd.Errno
			if err != nil && !errors.As(err, &got) || errno(got) != c.want {
				t.Errorf("structured %v: command %d, flags %d, %d bytes at %d: %v, want error %d", structured, c.command, c.flags, c.n, c.off, err, c.want)
			}
		}
	}
}

func TestBlockStatus(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	m := patterned(8<<20+100, rng)
	socket, _, _ := serve(t, Limits{}, nil, Export{Name: "a", View: m})
	c := open(t, socket, "a", true)
	for range 300 {
		off := rng.Int64N(m.Size())
		n := 1 + rng.Int64N(m.Size()-off)
		flags := uint16(rng.IntN(2)) * cmdFlagReqOne
		list, err := c.Status(flags, off, int(n))
		if err != nil {
			t.Fatal(err)
		}
		at := off
		for _, e := range list {
			if e.Flags != 0 && e.Flags != stateZero|stateHole {
				t.Fatalf("flags %d", e.Flags)
			}
			for end := at + e.Len; at < end; at++ {
				if m.kinds[at/memBlock].ReadsZero() != (e.Flags != 0) {
					t.Fatalf("%d is told to be %d, is %v", at, e.Flags, m.kinds[at/memBlock])
				}
			}
			if at < off+n && flags == 0 && m.kinds[at/memBlock].ReadsZero() == (e.Flags != 0) {
				t.Fatalf("two extents of one kind meet at %d", at)
			}
		}
		if flags == 0 && at != off+n || flags != 0 && (len(list) != 1 || at > off+n) {
			t.Fatalf("%d extents for [%d,%d), flags %d, up to %d", len(list), off, off+n, flags, at)
		}
	}
	simple := open(t, socket, "a", false)
	if _, err := simple.Do(0, cmdBlockStatus, 0, 512, nil); !errors.Is(err, testnbd.Errno(eInval)) {
		t.Errorf("without structured replies: %v", err)
	}
}

// There may be more extents than one reply holds.
func TestManyExtents(t *testing.T) {
	m := newMemImage(3 * maxStatus * memBlock)
	for i := range m.kinds {
		m.kinds[i] = sparse.Data + sparse.Kind(i%2)
	}
	socket, _, _ := serve(t, Limits{}, nil, Export{Name: "a", View: m})
	c := open(t, socket, "a", true)
	list, err := c.Status(0, 0, len(m.bytes))
	if err != nil || len(list) != maxStatus {
		t.Errorf("%d extents, %v", len(list), err)
	}
	if _, err := c.ReadAt(make([]byte, 32<<20), 4096); err != nil {
		t.Error(err)
	}
}

// Several clients write at random, each into blocks of its own, and read what
// all wrote.
func TestWrites(t *testing.T) {
	w := writableImage{newMemImage(8 << 20)}
	socket, _, _ := serve(t, Limits{}, nil, Export{Name: "a", View: w})
	const clients = 4
	want := make([]byte, len(w.bytes))
	var wait sync.WaitGroup
	for id := range clients {
		wait.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(id)))
			c := open(t, socket, "a", id%2 == 0)
			part := len(want) / clients
			for range 200 {
				n := 1 + rng.IntN(64<<10)
				off := id*part + rng.IntN(part-n)
				p := want[off : off+n]
				command := []uint16{cmdWrite, cmdWriteZeroes, cmdTrim, cmdRead}[rng.IntN(4)]
				flags := uint16(rng.IntN(2)) * cmdFlagFUA
				if command == cmdWriteZeroes {
					flags |= uint16(rng.IntN(2)) * cmdFlagNoHole
				}
				var err error
				switch command {
				case cmdRead:
					got := make([]byte, n)
					_, err = c.Do(flags, command, int64(off), n, got)
					if err == nil && !bytes.Equal(got, p) {
						err = fmt.Errorf("%d bytes at %d are not what was written", n, off)
					}
				case cmdWrite:
					for i := range p {
						p[i] = byte(rng.Uint32())
					}
					_, err = c.Do(flags, command, int64(off), n, p)
				case cmdWriteZeroes:
					clear(p)
					_, err = c.Do(flags, command, int64(off), n, nil)
				case cmdTrim:
					if start, end := (off+4095)&^4095, (off+n)&^4095; start < end {
						clear(want[start:end])
					}
					_, err = c.Do(flags, command, int64(off), n, nil)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
			before := w.syncs.Load()
			if _, err := c.Do(0, cmdFlush, 0, 0, nil); err != nil || w.syncs.Load() == before {
				t.Errorf("flush: %v, or it synced nothing", err)
			}
		})
	}
	wait.Wait()
	if !bytes.Equal(want, w.bytes) {
		t.Error("the image is not what was written")
	}
}

func TestFailures(t *testing.T) {
	w := writableImage{newMemImage(1 << 20)}
	for i := range w.bytes {
		w.bytes[i] = 1
	}
	w.set(0, w.Size(), sparse.Data)
	w.fail = func(off int64) error {
		switch off {
		case 4096:
			return errors.New("bad sector")
		case 8192:
			panic("bug")
		case 12288:
			return fmt.Errorf("write: %w", syscall.ENOSPC)
		}
		return nil
	}
	var mu sync.Mutex
	var lines []string
	log := func(line string) { mu.Lock(); defer mu.Unlock(); lines = append(lines, line) }
	socket, _, _ := serve(t, Limits{}, log, Export{Name: "a", View: w})
	for _, structured := range []bool{false, true} {
		c := open(t, socket, "a", structured)
		p := make([]byte, 512)
		for off, want := range map[int64]error{0: nil, 4096: testnbd.Errno(eIO), 8192: testnbd.Errno(eIO), 16384: nil} {
			if _, err := c.ReadAt(p, off); err != want {
				t.Errorf("read at %d: %v, want %v", off, err, want)
			}
			if _, err := c.WriteAt(p, off); err != want {
				t.Errorf("write at %d: %v, want %v", off, err, want)
			}
		}
		if _, err := c.WriteAt(p, 12288); err != testnbd.Errno(eNoSpace) {
			t.Errorf("write without space: %v", err)
		}
		for range 50 {
			c.ReadAt(p, 4096)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(lines) != logBurst || !strings.Contains(strings.Join(lines, "\n"), `export "a": read of 512 bytes at 4096: at 4096: bad sector`) {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
}

// What no client says ends the connection, and nothing else.
func TestEndsTransmission(t *testing.T) {
	w := writableImage{newMemImage(1 << 20)}
	socket, _, _ := serve(t, Limits{}, nil, Export{Name: "a", View: w})
	other := open(t, socket, "a", true)
	for what, say := range map[string][]byte{
		"an option":      testnbd.Option(optList, make([]byte, 100)),
		"nonsense":       bytes.Repeat([]byte("x"), 64<<10),
		"a huge write":   testnbd.Request(0, cmdWrite, 1, 0, 32<<20+1),
		"disconnecting":  testnbd.Request(0, cmdDisc, 1, 0, 0),
		"disconnecting2": append(testnbd.Request(0, cmdDisc, 1, 0, 0), testnbd.Request(0, cmdRead, 1, 0, 512)...),
	} {
		c := open(t, socket, "a", false)
		c.Write(say)
		c.SetReadDeadline(time.Now().Add(testnbd.Patience))
		if b, err := io.ReadAll(c.In); len(b) > 0 || err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %d bytes, %v", what, len(b), err)
		}
	}
	if _, err := other.ReadAt(make([]byte, 4096), 0); err != nil {
		t.Error(err)
	}
}

// A client that leaves, whenever it does, leaves nothing behind; see serve.
func TestCutAnywhere(t *testing.T) {
	w := writableImage{newMemImage(1 << 20)}
	socket, s, _ := serve(t, Limits{Stall: time.Second}, nil, Export{Name: "a", View: w})
	script := binary.BigEndian.AppendUint32(nil, 3)
	script = append(script, testnbd.Option(optStructuredReply, nil)...)
	script = append(script, testnbd.Option(optSetMeta, testnbd.Query("a", metaName))...)
	script = append(script, testnbd.Option(optInfo, append(testnbd.String("a"), 0, 1, 0, 3))...)
	script = append(script, testnbd.Option(optGo, append(testnbd.String("a"), 0, 1, 0, 3))...)
	script = append(script, testnbd.Request(0, cmdRead, 1, 0, 1<<20)...)
	script = append(append(script, testnbd.Request(0, cmdWrite, 2, 0, 100)...), make([]byte, 100)...)
	script = append(script, testnbd.Request(0, cmdBlockStatus, 3, 0, 1<<20)...)
	script = append(script, testnbd.Request(0, cmdFlush, 4, 0, 0)...)
	script = append(script, testnbd.Request(0, cmdDisc, 5, 0, 0)...)
	for cut := range len(script) + 1 {
		c, err := testnbd.Dial("unix", socket, binary.BigEndian.Uint32(script))
		if err != nil {
			t.Fatal(err)
		}
		if cut > 4 {
			c.Write(script[4:cut])
		}
		if cut == len(script) {
			c.SetReadDeadline(time.Now().Add(testnbd.Patience))
			if _, err := io.ReadAll(c.In); err != nil {
				t.Error(err)
			}
		}
		c.Close()
	}
	for range 100 {
		if len(s.all()) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%d sessions are left", len(s.all()))
}

// There may be more holes in a read than its reply has pieces.
func TestManyHoles(t *testing.T) {
	m := newMemImage(16 << 20)
	for off := int64(0); off < m.Size(); off += 2 * minHole {
		m.set(off, minHole, sparse.Data)
		for i := range int64(minHole) {
			m.bytes[off+i] = byte(off>>15) | 1
		}
	}
	socket, _, _ := serve(t, Limits{}, nil, Export{Name: "a", View: m})
	c := open(t, socket, "a", true)
	for _, off := range []int64{0, 100, minHole, 3*minHole + 100} {
		p := bytes.Repeat([]byte{0xee}, 10<<20)
		chunks, err := c.Do(0, cmdRead, off, len(p), p)
		if err != nil || len(chunks) != maxChunks || !bytes.Equal(p, m.bytes[off:][:len(p)]) {
			t.Errorf("at %d: %d chunks, %v, or wrong bytes", off, len(chunks), err)
		}
	}
}

// A trim keeps blocks of which it has only a part, but for the last one of the
// image.
func TestTrim(t *testing.T) {
	w := writableImage{newMemImage(5*memBlock + 100)}
	for i := range w.bytes {
		w.bytes[i] = 1
	}
	socket, _, _ := serve(t, Limits{}, nil, Export{Name: "a", View: w})
	c := open(t, socket, "a", false)
	for _, r := range [][2]int{{1, memBlock}, {memBlock + 1, 2 * memBlock}, {4*memBlock + 1, memBlock + 99}} {
		if _, err := c.Do(0, cmdTrim, int64(r[0]), r[1], nil); err != nil {
			t.Fatal(err)
		}
	}
	want := bytes.Repeat([]byte{1}, len(w.bytes))
	clear(want[2*memBlock : 3*memBlock])
	clear(want[5*memBlock:])
	if !bytes.Equal(w.bytes, want) {
		t.Error("trimmed too much, or too little")
	}
}
