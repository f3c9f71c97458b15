package main

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
)

// writePatterns makes the files that `write -s` repeats over a request. Blocks
// that are zero up to their last byte, or from their second on, are what a
// careless test for zeros takes for zeros.
func writePatterns(dir string) ([]string, error) {
	var seed [32]byte
	noise := rand.NewChaCha8(seed)
	random := func(n int) []byte {
		p := make([]byte, n)
		noise.Read(p)
		return p
	}
	lastByte := func(n int) []byte {
		p := make([]byte, n)
		p[n-1] = 1
		return p
	}
	halves := append(make([]byte, 512), bytes.Repeat([]byte{'A'}, 512)...)
	text := []byte{}
	for i := 0; len(text) < 20000; i++ {
		text = append(text, "line "+strconv.Itoa(i*i)+" of a log that compresses well\n"...)
	}
	var names []string
	for i, p := range [][]byte{
		random(4096), random(4096), random(1 << 20), random(1000),
		lastByte(4096), lastByte(65536), lastByte(512),
		append([]byte{1}, make([]byte, 4095)...),
		make([]byte, 4096),
		halves, text, evilHeader(), // the last one is for the start of disks
	} {
		name := filepath.Join(dir, "pattern"+strconv.Itoa(i))
		if err := os.WriteFile(name, p, 0o644); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// evilHeader is a qcow2 header whose backing file is none of the guest's
// business.
func evilHeader() []byte {
	const name = "/etc/passwd"
	p := make([]byte, 4096)
	copy(p, "QFI\xfb")
	for at, v := range map[int]uint32{4: 3, 12: 512, 16: uint32(len(name)), 20: 9, 28: 1 << 20, 36: 32, 44: 1024, 52: 2048, 56: 1, 96: 4, 100: 104} {
		binary.BigEndian.PutUint32(p[at:], v)
	}
	copy(p[512:], name)
	return p
}
