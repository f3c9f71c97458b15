package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"cbt/internal/nbd"
	"cbt/internal/overlay"
	"cbt/internal/testnbd"
	"cbt/sparse"
)

// talk is a connection whose client has said all it will, and hears what the
// server answers.
type talk struct {
	say *bytes.Reader

	mu    sync.Mutex
	heard bytes.Buffer
}

// maxHeard is more than a server answers to what fits into a fuzzed input.
const maxHeard = 1 << 30

func (t *talk) Read(p []byte) (int, error) { return t.say.Read(p) }

func (t *talk) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.heard.Len() > maxHeard {
		return 0, errors.New("too much")
	}
	return t.heard.Write(p)
}

func (t *talk) Close() error                     { return nil }
func (t *talk) LocalAddr() net.Addr              { return nil }
func (t *talk) RemoteAddr() net.Addr             { return nil }
func (t *talk) SetDeadline(time.Time) error      { return nil }
func (t *talk) SetReadDeadline(time.Time) error  { return nil }
func (t *talk) SetWriteDeadline(time.Time) error { return nil }

const nbdSize = 1<<20 + 100

// nbdBase has data in every other run of 64 KiB.
type nbdBase struct{ bytes.Reader }

func newNBDBase() *nbdBase {
	b := make([]byte, nbdSize)
	for i := range b {
		if i>>16&1 == 0 {
			b[i] = byte(i>>8) | 1
		}
	}
	return &nbdBase{*bytes.NewReader(b)}
}

func (b *nbdBase) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, nbdSize); err != nil {
		return sparse.Fail(err)
	}
	var data []sparse.Extent
	for at := int64(0); at < nbdSize; at += 128 << 10 {
		data = append(data, sparse.Extent{Off: at, Len: min(64<<10, nbdSize-at), Kind: sparse.Data})
	}
	return sparse.Fill(sparse.Of(data...), off, n, sparse.Hole)
}

// negotiated is what a client says to get to an export.
func negotiated(export string, structured bool) []byte {
	b := []byte{0, 0, 0, 3}
	if structured {
		b = append(b, testnbd.Option(8, nil)...)
		b = append(b, testnbd.Option(10, testnbd.Query(export, "base:allocation"))...)
	}
	return append(b, testnbd.Option(7, append(testnbd.String(export), 0, 1, 0, 3))...)
}

// FuzzNBD takes its input for what a client says: all of it (mode 0), or behind
// the negotiation of a read-only or writable export, with simple or structured
// replies. What the server answers must be replies to what was asked, with the
// bytes of the image.
func FuzzNBD(f *testing.F) {
	reads := testnbd.Request(0, 0, 1, 0, 4096)
	reads = append(reads, testnbd.Request(4, 0, 2, 60<<10, 128<<10)...)
	reads = append(reads, testnbd.Request(0, 7, 3, 0, nbdSize)...)
	reads = append(reads, testnbd.Request(8, 7, 4, 100, 1<<20)...)
	reads = append(reads, testnbd.Request(0, 5, 5, 0, 1<<20)...)
	reads = append(reads, testnbd.Request(0, 0, 6, 1<<20, 1000)...)
	writes := append(testnbd.Request(1, 1, 7, 5000, 100), bytes.Repeat([]byte{9}, 100)...)
	writes = append(writes, testnbd.Request(2, 6, 8, 4000, 10000)...)
	writes = append(writes, testnbd.Request(0, 4, 9, 4000, 100000)...)
	writes = append(writes, testnbd.Request(0, 3, 10, 0, 0)...)
	writes = append(writes, testnbd.Request(0, 2, 11, 0, 0)...)
	for mode := range byte(5) {
		f.Add(mode, append(bytes.Clone(reads), writes...))
	}
	options := append(negotiated("nothing", true), testnbd.Option(3, nil)...)
	options = append(options, testnbd.Option(9, testnbd.Query("", "base:"))...)
	options = append(options, testnbd.Option(6, append(testnbd.String("rw"), 0, 4, 0, 0, 0, 1, 0, 2, 0, 3))...)
	options = append(options, testnbd.Option(5, nil)...)
	f.Add(byte(0), append(options, negotiated("rw", true)[4:]...))
	f.Add(byte(0), append([]byte{0, 0, 0, 1}, testnbd.Option(1, []byte("ro"))...))

	base := newNBDBase()
	f.Fuzz(func(t *testing.T, mode byte, input []byte) {
		if len(input) > 64<<10 {
			return
		}
		image, err := overlay.Open(base, "base", &overlayFile{})
		if err != nil {
			t.Fatal(err)
		}
		server, err := nbd.New([]nbd.Export{{Name: "ro", Description: "a", View: base}, {Name: "rw", View: image}}, nbd.Limits{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		mode %= 5
		export, structured := "ro", mode&1 == 0
		if mode > 2 {
			export = "rw"
		}
		say := input
		if mode > 0 {
			say = append(negotiated(export, structured), input...)
		}
		conn := &talk{say: bytes.NewReader(say)}
		ended := make(chan struct{})
		go func() { server.ServeConn(conn); close(ended) }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("does not end")
		}
		if mode > 0 {
			checkReplies(t, base, conn.heard.Bytes(), input, export == "rw", structured)
		}
	})
}

// checkReplies reads what the server said to requests.
func checkReplies(t *testing.T, base *nbdBase, heard, input []byte, writable, structured bool) {
	t.Helper()
	asked := make(map[uint64][]int64) // cookie: off, n, command
	again := false
	for b := input; len(b) >= 28 && binary.BigEndian.Uint32(b) == 0x25609513; {
		cookie, n, command := binary.BigEndian.Uint64(b[8:]), int64(binary.BigEndian.Uint32(b[24:])), int64(binary.BigEndian.Uint16(b[6:]))
		again = again || asked[cookie] != nil
		asked[cookie] = []int64{int64(binary.BigEndian.Uint64(b[16:])), n, command}
		if b = b[28:]; command == 1 {
			b = b[min(n, int64(len(b))):]
		}
	}
	if again {
		return // replies cannot be told apart
	}
	c := testnbd.Hear(bytes.NewReader(heard), structured)
	if err := c.Skip(); err != nil {
		t.Fatalf("negotiation: %v", err)
	}
	for {
		k, err := c.Receive(0)
		if err == io.EOF {
			return
		}
		what := asked[k.Cookie]
		if err != nil || what == nil {
			t.Fatalf("reply to %d: %v", k.Cookie, err)
		}
		off := k.Off
		if what[2] == 0 && k.Err == 0 && !structured {
			off, k.Data = what[0], make([]byte, what[1])
			if _, err := io.ReadFull(c.In, k.Data); err != nil {
				t.Fatalf("data of %d: %v", k.Cookie, err)
			}
		}
		if what[2] != 0 || k.Err != 0 || k.Type > 2 || structured && k.Type == 0 || writable {
			continue
		}
		want := make([]byte, max(int64(len(k.Data)), k.Hole))
		if off < what[0] || off+int64(len(want)) > what[0]+what[1] {
			t.Fatalf("%d bytes at %d are no answer to %v", len(want), off, what)
		}
		if len(want) > 0 {
			if _, err := base.ReadAt(want, off); err != nil {
				t.Fatal(err)
			}
		}
		if k.Hole > 0 && !sparse.IsZero(want) || k.Hole == 0 && !bytes.Equal(want, k.Data) {
			t.Fatalf("wrong bytes at %d", off)
		}
	}
}
