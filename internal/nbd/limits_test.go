package nbd

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cbt/internal/testnbd"
	"cbt/sparse"
)

// Clients beyond the limit wait for their turn.
func TestManyConnections(t *testing.T) {
	m := newMemImage(1 << 20)
	var now, most atomic.Int64
	m.fail = func(int64) error {
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(time.Millisecond)
		now.Add(-1)
		return nil
	}
	socket, _, _ := serve(t, Limits{Connections: 4}, nil, Export{Name: "a", View: m})
	var wait sync.WaitGroup
	for range 60 {
		wait.Go(func() {
			c, err := testnbd.Open("unix", socket, "a", true)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if _, err := c.ReadAt(make([]byte, 4096), 4096); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if most.Load() > 4 {
		t.Errorf("%d reads at once", most.Load())
	}
}

// Clients that take no replies are cut when others need what they hold, and
// not before.
func TestStalledClients(t *testing.T) {
	m := newMemImage(64 << 20)
	m.set(0, m.Size(), sparse.Data)
	for i := range m.bytes {
		m.bytes[i] = 7
	}
	socket, s, _ := serve(t, Limits{Stall: 300 * time.Millisecond}, nil, Export{Name: "a", View: m})
	var stalled []*testnbd.Client
	for range 2 {
		c := open(t, socket, "a", true)
		c.Send(0, cmdRead, 1, 0, 32<<20, nil)
		stalled = append(stalled, c)
	}
	time.Sleep(600 * time.Millisecond)
	if len(s.all()) != 2 {
		t.Fatal("a slow client was cut though nobody waits")
	}
	c := open(t, socket, "a", true)
	if _, err := c.ReadAt(make([]byte, 64<<10), 0); err != nil {
		t.Fatal(err)
	}
	if len(s.all()) != 3 {
		t.Error("a client was cut for a small request")
	}
	if _, err := c.ReadAt(make([]byte, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	broken := 0
	for _, c := range stalled {
		if _, err := c.Receive(0); err != nil {
			broken++
		}
	}
	if broken == 0 {
		t.Error("no stalled client was cut")
	}
}

// Stopping is quick, whatever clients do.
func TestStop(t *testing.T) {
	m := newMemImage(64 << 20)
	m.set(0, m.Size(), sparse.Data)
	for i := range m.bytes {
		m.bytes[i] = 7
	}
	m.fail = func(off int64) error {
		if off == 4096 {
			time.Sleep(100 * time.Millisecond) // ends in time
		}
		return nil
	}
	socket, _, stop := serve(t, Limits{Grace: 400 * time.Millisecond}, nil, Export{Name: "a", View: m})
	idle := open(t, socket, "a", true)
	silent := dial(t, socket, 3)
	slow := open(t, socket, "a", true)
	for i := range 4 {
		slow.Send(0, cmdRead, uint64(i), 0, 8<<20, nil)
	}
	busy := open(t, socket, "a", true)
	busy.Send(0, cmdRead, 1, 4096, 512, nil)
	time.Sleep(50 * time.Millisecond)
	if took := stop(); took < 400*time.Millisecond || took > 3*time.Second {
		t.Errorf("took %v: a client that takes nothing has 400 ms", took)
	}
	if k, err := busy.Receive(0); err != nil || k.Err != 0 {
		t.Errorf("a request under way: %v, %v", k.Err, err)
	}
	for _, c := range []*testnbd.Client{idle, silent} {
		c.SetReadDeadline(time.Now().Add(testnbd.Patience))
		if _, err := c.In.ReadByte(); err == nil {
			t.Error("a connection is still there")
		}
	}
}

// A client that says no more, but does not take what it asked for, is not
// waited for forever.
func TestSilentClient(t *testing.T) {
	m := newMemImage(16 << 20)
	m.set(0, m.Size(), sparse.Data)
	for i := range m.bytes {
		m.bytes[i] = 7
	}
	socket, s, _ := serve(t, Limits{Stall: 200 * time.Millisecond}, nil, Export{Name: "a", View: m})
	c := open(t, socket, "a", true)
	c.Send(0, cmdRead, 1, 0, 16<<20, nil)
	c.Conn.(*net.UnixConn).CloseWrite()
	for range 100 {
		if len(s.all()) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("the session is still there")
}

// Connections that say nothing keep nobody out for long, however many they are.
func TestHalfOpenConnections(t *testing.T) {
	m := newMemImage(1 << 20)
	for what, limits := range map[string]Limits{
		"as many as may be": {Connections: 4},
		"too many":          {Connections: 4, Unserved: 8, Hurry: 100 * time.Millisecond, Handshake: time.Hour},
	} {
		socket, _, _ := serve(t, limits, nil, Export{Name: "a", View: m})
		limits.fill()
		var silent []net.Conn
		for range limits.Unserved + limits.Connections - 1 {
			c, err := net.Dial("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			silent = append(silent, c)
		}
		if limits.Unserved == 8 {
			for range 40 {
				c, err := net.Dial("unix", socket)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
		}
		before := time.Now()
		c, err := testnbd.Open("unix", socket, "a", true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.ReadAt(make([]byte, 4096), 4096); err != nil {
			t.Error(err)
		}
		c.Close()
		if took := time.Since(before); took > 5*time.Second {
			t.Errorf("%s: %d silent connections kept another one out for %v", what, len(silent), took)
		}
	}
}
