package fuzz

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"testing"

	"cbt/cbt"
	"cbt/sparse"
)

func seedDeltas(f *testing.F) {
	names, err := filepath.Glob("../cbt/testdata/*.cbt")
	if err != nil || len(names) == 0 {
		f.Fatalf("no golden deltas: %v", err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// deltaError says whether err is one that a bad delta may give.
func deltaError(err error) bool {
	var format *sparse.FormatError
	var unknown *cbt.UnknownFeatureError
	return errors.As(err, &format) || errors.As(err, &unknown)
}

// walkLimit bounds the work on deltas that claim exabytes.
const walkLimit = 4 << 20

// FuzzDelta reads any bytes as a delta, in one pass and at random. Neither may
// panic; what Verify accepts must read at random too, with the same totals.
func FuzzDelta(f *testing.F) {
	seedDeltas(f)
	f.Fuzz(readDelta)
}

func readDelta(t *testing.T, b []byte) {
	h, sum, verr := cbt.Verify(context.Background(), bytes.NewReader(b), cbt.VerifyOptions{Workers: 1})
	if verr != nil && !deltaError(verr) {
		t.Fatalf("Verify: %T %v", verr, verr)
	}
	if verr != nil && (len(h.Streams) > 0 || sum.Size != 0) {
		t.Fatal("Verify returned an error and a result")
	}
	d, err := cbt.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		if !deltaError(err) {
			t.Fatalf("Open: %T %v", err, err)
		}
		if verr == nil {
			t.Fatalf("verified, but Open says: %v", err)
		}
		return
	}
	for i, s := range d.Header.Streams {
		covered, err := sparse.Total(d.Extents(i))
		if err == nil && verr == nil && covered != sum.Streams[i].Data+sum.Streams[i].Zero {
			t.Fatalf("stream %d covers %d bytes, Verify counted %v", i, covered, sum.Streams[i])
		}
		if err != nil && verr == nil {
			t.Fatalf("verified, but its extents: %v", err)
		}
		if !s.Full {
			continue
		}
		stack, err := cbt.NewStack(cbt.Layer{Delta: d, Stream: i})
		if err != nil {
			t.Fatal(err)
		}
		n := min(stack.Size(), walkLimit)
		_, err = io.Copy(io.Discard, io.NewSectionReader(stack, 0, n))
		if err != nil && (verr == nil || !deltaError(err)) {
			t.Fatalf("reading: %T %v", err, err)
		}
	}
}

// reseal makes the CRCs and the SHA-256 of a damaged delta right again, so that
// the fuzzer gets behind them: to lying tables, indexes and totals.
func reseal(b []byte) []byte {
	b = bytes.Clone(b)
	le := binary.LittleEndian
	table := crc32.MakeTable(crc32.Castagnoli)
	var seq, dataLen uint64
	for at := 11; at+12 <= len(b); {
		magic := le.Uint32(b[at:])
		if magic&^0xf != 0x184D2A50 {
			if at += int(dataLen); dataLen == 0 {
				break
			}
			dataLen = 0
			continue
		}
		end := at + 8 + int(le.Uint32(b[at+4:]))
		if end > len(b) || end < at+12 {
			break
		}
		switch {
		case magic&0xf == 1 && at+32 <= end:
			dataLen = uint64(le.Uint32(b[at+28:]))
		case magic&0xf == 4 && end-at == 84:
			sum := sha256.Sum256(b[:at])
			copy(b[at+48:], sum[:])
			le.PutUint64(b[at+32:], seq)
		}
		crc := crc32.Update(crc32.Checksum(le.AppendUint64(nil, seq), table), table, b[at:end-4])
		le.PutUint32(b[end-4:], crc)
		seq++
		at = end
	}
	return b
}

// FuzzResealedDelta is FuzzDelta for deltas whose checksums are right.
func FuzzResealedDelta(f *testing.F) {
	seedDeltas(f)
	f.Fuzz(func(t *testing.T, b []byte) { readDelta(t, reseal(b)) })
}
