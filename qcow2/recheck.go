package qcow2

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"

	"cbt/sparse"
)

var errChanged = fmt.Errorf("the image %w", sparse.ErrChanged)

// Recheck reads the header, v's entry of the snapshot table and v's L1 table again. It returns an
// error that is sparse.ErrChanged unless they are as they were when v was made. For a snapshot this
// proves that it existed all the time. Other things may change in a file that a machine runs on,
// such as the place of the snapshot table and its other entries; they do not matter. For the active
// state nothing in the header may have changed. Whether a guest wrote in the meantime cannot be
// seen from this; only locks can rule it out.
func (img *Image) Recheck(v *View) error {
	if v.img != img {
		return errors.New("qcow2: Recheck of a view of another image")
	}
	// A machine may have made the file longer, and the snapshot table may now lie in the new part.
	now := Image{file: file{img.file.r, math.MaxInt64}}
	if err := now.readHead(Options{AllowCorrupt: true, AllowEncrypted: true}); err != nil {
		return fmt.Errorf("%w: %w", errChanged, err)
	}
	if v.snapshot == nil {
		if now.header != img.header {
			return fmt.Errorf("%w: header", errChanged)
		}
	} else if err := img.recheckSnapshot(&now, v.snapshot); err != nil {
		return err
	}
	sum, err := v.sumL1()
	if err != nil {
		return err
	}
	if sum != v.l1Sum {
		return fmt.Errorf("%w: L1 table at 0x%x", errChanged, v.l1Offset)
	}
	return nil
}

func (img *Image) recheckSnapshot(now *Image, s *Snapshot) error {
	if img.header.essence() != now.header.essence() || img.ext.backingFormat != now.ext.backingFormat {
		return fmt.Errorf("%w: header", errChanged)
	}
	// Usually the table is where it was, because QEMU writes a changed one to another place.
	// Reading all of it for each of many snapshots would take time that grows with the square of
	// their number.
	if a, b := &now.header, &img.header; a.SnapshotsOffset == b.SnapshotsOffset && a.NbSnapshots == b.NbSnapshots {
		entry := bufio.NewReader(io.NewSectionReader(now.file.r, s.Offset, math.MaxInt64-s.Offset))
		if have, _, err := a.readSnapshot(entry, s.Offset); err == nil && have == *s {
			return nil
		}
	}
	var err error
	if now.snapshots, err = now.header.readSnapshots(now.file.r, now.file.size); err != nil {
		return fmt.Errorf("%w: %w", errChanged, err)
	}
	for _, have := range now.snapshots {
		have.Offset = s.Offset
		if have == *s {
			return nil
		}
	}
	return fmt.Errorf("%w: snapshot %q (ID %q) is no longer there", errChanged, s.Name, s.ID)
}

// essence returns the fields that the content of snapshots depends on.
func (h Header) essence() Header {
	return Header{
		Version:         h.Version,
		ClusterBits:     h.ClusterBits,
		CryptMethod:     h.CryptMethod,
		Incompatible:    h.Incompatible &^ (IncompatDirty | IncompatCorrupt),
		CompressionType: h.CompressionType,
		BackingFile:     h.BackingFile,
	}
}

// sumL1 returns a hash of the L1 table of v, without COPIED bits: QEMU changes those in the tables
// of snapshots too, when refcounts change.
func (v *View) sumL1() (sum [sha256.Size]byte, err error) {
	hash := sha256.New()
	buf := make([]byte, min(maxSlice, v.l1Entries*8))
	for at := int64(0); at < v.l1Entries*8; at += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), v.l1Entries*8-at)]
		if err := v.img.file.fill("qcow2 L1 table", buf, v.l1Offset+uint64(at)); err != nil {
			return sum, err
		}
		for i := 0; i < len(buf); i += 8 {
			buf[i] &^= 0x80
		}
		hash.Write(buf)
	}
	hash.Sum(sum[:0])
	return sum, nil
}
