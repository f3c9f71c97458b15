package base_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
)

// frames cuts a delta into its frames, by docs/delta-format.md sections 1, 2
// and 6. kinds has a letter for each: M magic, D data, and for the skippable
// frames H header, T table, L leaf, R root, E trailer.
func frames(t *testing.T, p []byte) (fs [][]byte, kinds string) {
	t.Helper()
	for len(p) > 0 {
		n, kind := 0, byte(0)
		switch magic := binary.LittleEndian.Uint32(p); {
		case magic == 0x184D2204 && len(fs) == 0:
			n, kind = 11, 'M'
		case magic == 0x184D2204:
			n, kind = 7+4+int(binary.LittleEndian.Uint32(p[7:])&^(1<<31))+4, 'D'
		case magic>>4 == 0x184D2A5 && magic&15 < 5:
			n, kind = 8+int(binary.LittleEndian.Uint32(p[4:])), "HTLRE"[magic&15]
		default:
			t.Fatalf("no frame starts with %#x, after %q", magic, kinds)
		}
		if n > len(p) {
			t.Fatalf("a frame of %d bytes in %d, after %q", n, len(p), kinds)
		}
		fs, kinds, p = append(fs, p[:n]), kinds+string(kind), p[n:]
	}
	return fs, kinds
}

// chunky has deltas of several chunks that compress well.
func chunky(t *testing.T, seed int) chain {
	dir := t.TempDir()
	return makeChain(t, dir, filepath.Join(dir, "disk.qcow2"), 3, "cluster_size=65536", 5<<20, func(i int) []string {
		return []string{
			fmt.Sprintf("write -q -P %d 0 3M", seed+i),
			fmt.Sprintf("write -q -P %d 3M 1900k", seed+10+i),
		}
	})
}

func TestFramesMoved(t *testing.T) {
	c, foreign := chunky(t, 40), chunky(t, 90)
	fs, kinds := frames(t, readFile(t, c.deltas[1]))
	others, otherKinds := frames(t, readFile(t, foreign.deltas[1]))
	next, nextKinds := frames(t, readFile(t, c.deltas[2]))
	if kinds != "MHTDTDTDTDTDLRE" || otherKinds != kinds || nextKinds != kinds {
		t.Fatalf("the deltas consist of %q, %q, %q", kinds, otherKinds, nextKinds)
	}
	b := newBench(t, c)
	n := len(fs)
	try := func(what string, fs [][]byte) { b.try(what, slices.Concat(fs...)) }

	for i := range n {
		try(fmt.Sprintf("frame %d (%c) missing", i, kinds[i]), slices.Delete(slices.Clone(fs), i, i+1))
		try(fmt.Sprintf("frame %d (%c) twice", i, kinds[i]), slices.Insert(slices.Clone(fs), i, fs[i]))
		for j := range i {
			if bytes.Equal(fs[i], fs[j]) {
				continue
			}
			swapped := slices.Clone(fs)
			swapped[i], swapped[j] = fs[j], fs[i]
			try(fmt.Sprintf("frames %d and %d swapped", j, i), swapped)
		}
		for from, those := range map[string][][]byte{"another image": others, "the next delta": next} {
			if bytes.Equal(those[i], fs[i]) {
				continue
			}
			mixed := slices.Clone(fs)
			mixed[i] = those[i]
			try(fmt.Sprintf("frame %d (%c) from %s", i, kinds[i], from), mixed)
			if i > 1 { // with the same magic frame in front it would be whole
				try(fmt.Sprintf("%s from frame %d on", from, i), slices.Concat(fs[:i:i], those[i:]))
			}
		}
	}
	// Whole chunks: a table and its data.
	for i := 2; i < 12; i += 2 {
		chunk := fs[i : i+2]
		try(fmt.Sprintf("chunk at %d missing", i), slices.Delete(slices.Clone(fs), i, i+2))
		try(fmt.Sprintf("chunk at %d twice", i), slices.Insert(slices.Clone(fs), i, chunk...))
		for j := 2; j < i; j += 2 {
			moved := slices.Clone(fs)
			copy(moved[i:], fs[j:j+2])
			copy(moved[j:], chunk)
			try(fmt.Sprintf("chunks at %d and %d swapped", j, i), moved)
		}
		mixed := slices.Clone(fs)
		copy(mixed[i:], next[i:i+2])
		try(fmt.Sprintf("chunk at %d from the next delta", i), mixed)
	}
}

func TestBytesBehind(t *testing.T) {
	c := chunky(t, 40)
	whole := readFile(t, c.deltas[1])
	b := newBench(t, c)
	fs, _ := frames(t, whole)
	for what, tail := range map[string][]byte{
		"a zero byte":             {0},
		"a byte":                  {0x5a},
		"4 KiB of zeros":          make([]byte, 4096),
		"an empty LZ4 frame":      fs[0],
		"an empty skippable":      {0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0},
		"a foreign skippable":     {0x5f, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9},
		"its trailer":             fs[len(fs)-1],
		"itself":                  whole,
		"the next delta":          readFile(t, c.deltas[2]),
		"a cut of the next delta": readFile(t, c.deltas[2])[:100],
	} {
		b.try(what+" behind", slices.Concat(whole, tail))
		if what != "itself" {
			b.try(what+" in front", slices.Concat(tail, whole))
		}
	}
	for i := 1; i < len(fs); i++ {
		b.try(fmt.Sprintf("an empty skippable before frame %d", i),
			slices.Concat(slices.Concat(fs[:i]...), []byte{0x5f, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, slices.Concat(fs[i:]...)))
		b.try(fmt.Sprintf("an empty LZ4 frame before frame %d", i),
			slices.Concat(slices.Concat(fs[:i]...), fs[0], slices.Concat(fs[i:]...)))
	}
}
