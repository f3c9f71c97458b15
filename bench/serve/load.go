package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"cbt/internal/testnbd"
)

// load reads 4 KiB at random places of an export, with so many requests under
// way on each of some connections, and returns how many a second.
func load(socket string, size int64, connections, inFlight int, d time.Duration, seed uint64) (float64, error) {
	counts := make([]int, connections)
	errs := make([]error, connections)
	var wait sync.WaitGroup
	start := time.Now()
	for i := range connections {
		wait.Go(func() {
			counts[i], errs[i] = loadOne(socket, size, inFlight, start.Add(d), rand.New(rand.NewPCG(seed, uint64(i))))
		})
	}
	wait.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / time.Since(start).Seconds(), errors.Join(errs...)
}

// loadOne writes as many new requests at once as replies came at once.
func loadOne(socket string, size int64, inFlight int, until time.Time, rng *rand.Rand) (int, error) {
	const blockSize = 4096
	c, err := testnbd.Open("unix", socket, "", false)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var out bytes.Buffer
	ask := func() {
		off := uint64(rng.Int64N(size/blockSize)) * blockSize
		out.Write(testnbd.Request(0, 0, off, off, blockSize))
	}
	for range inFlight {
		ask()
	}
	var head [16]byte
	c.SetReadDeadline(until.Add(testnbd.Patience))
	for n := 0; ; {
		if _, err := out.WriteTo(c); err != nil {
			return n, err
		}
		for {
			if _, err := io.ReadFull(c.In, head[:]); err != nil {
				return n, err
			}
			if binary.BigEndian.Uint64(head[:]) != 0x67446698<<32 {
				return n, fmt.Errorf("%x is no reply", head)
			}
			if err := look(c, binary.BigEndian.Uint64(head[8:])); err != nil {
				return n, err
			}
			n++
			ask()
			if c.In.Buffered() < len(head)+blockSize {
				break
			}
		}
		if time.Now().After(until) {
			return n, nil
		}
	}
}

// look takes the data of a reply: each block begins with its own offset.
func look(c *testnbd.Client, off uint64) error {
	b, err := c.In.Peek(8)
	if err != nil {
		return err
	}
	if at := binary.BigEndian.Uint64(b); at != off {
		return fmt.Errorf("the block at %d says that it is the one at %d", off, at)
	}
	_, err = c.In.Discard(4096)
	return err
}
