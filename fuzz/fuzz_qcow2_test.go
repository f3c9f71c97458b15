package fuzz

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"cbt/internal/testimg"
	"cbt/qcow2"
	"cbt/sparse"
)

// qcow2Base is the backing file of every image here.
var qcow2Base = bytes.Repeat([]byte("backing file "), 3000)

// openQcow2 opens bytes as an image and checks that an error comes without an
// image and says that the image is to blame.
func openQcow2(t testing.TB, b []byte, backing sparse.View) *qcow2.Image {
	refused := errors.New("refused by the test")
	img, err := qcow2.Open(bytes.NewReader(b), int64(len(b)), qcow2.Options{
		Backing: func(name, format string) (sparse.View, error) {
			if backing == nil {
				return nil, refused
			}
			return backing, nil
		},
		Data:         func(name string) (io.ReaderAt, int64, error) { return bytes.NewReader(b), int64(len(b)), nil },
		AllowCorrupt: true,
	})
	if err == nil {
		return img
	}
	if img != nil {
		t.Errorf("an image and an error: %v", err)
	}
	if !errors.Is(err, refused) {
		wantFormat(t, err)
	}
	return nil
}

func wantFormat(t testing.TB, err error) {
	var fe *sparse.FormatError
	if !errors.As(err, &fe) {
		t.Errorf("no format error: %v", err)
	}
}

// qcow2States are the active state and the first snapshots.
func qcow2States(t testing.TB, img *qcow2.Image) []*qcow2.View {
	views := []*qcow2.View{img.Active()}
	for i := range min(len(img.Snapshots()), 3) {
		v, err := img.Snapshot(i)
		if (v == nil) == (err == nil) {
			t.Errorf("snapshot %d: %v, %v", i, v, err)
		}
		if err != nil {
			wantFormat(t, err)
			continue
		}
		views = append(views, v)
	}
	return views
}

// FuzzQcow2 opens any bytes as an image and does all that can be done with it.
func FuzzQcow2(f *testing.F) {
	for _, b := range smallQcow2(f) {
		if len(b) < 32<<10 { // minimizing longer ones takes all the time
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		img := openQcow2(t, b, sparse.Plain(bytes.NewReader(qcow2Base), int64(len(qcow2Base))))
		if img == nil {
			return
		}
		img.Extensions()
		img.FeatureNames()
		for _, v := range qcow2States(t, img) {
			walkQcow2(t, v)
			if err := img.Recheck(v); err != nil {
				t.Errorf("Recheck of what did not change: %v", err)
			}
		}
		bitmaps, err := img.Bitmaps()
		if err != nil {
			wantFormat(t, err)
		}
		for _, b := range bitmaps[:min(len(bitmaps), 3)] {
			v := img.Active()
			walkExtents(t, v, v.ChangedByBitmap(v, b.Name, 0, v.Size()))
		}
	})
}

// walkQcow2 checks that extents and map cover the disk, and that what they say
// reads as zeros does.
func walkQcow2(t *testing.T, v *qcow2.View) {
	const most = 300
	extents := walkExtents(t, v, v.Extents(0, v.Size()))
	pos := int64(0)
	for _, e := range extents {
		if e.Off != pos {
			t.Fatalf("Extents: %v after %d", e, pos)
		}
		pos = e.End()
		p := make([]byte, min(e.Len, 8<<10))
		n, err := v.ReadAt(p, e.End()-int64(len(p)))
		if err != nil && err != io.EOF {
			wantFormat(t, err)
			continue
		}
		if n != len(p) {
			t.Fatalf("%d of %d bytes at %d without an error", n, len(p), e.End()-int64(len(p)))
		}
		if e.Kind.ReadsZero() && !sparse.IsZero(p) {
			t.Fatalf("%v is not zero", e)
		}
		// A part of the whole is the same in any way it is read.
		if n > 3 {
			part := make([]byte, n-3)
			if _, err := v.ReadAt(part, e.End()-int64(n)+2); err != nil || !bytes.Equal(part, p[2:n-1]) {
				t.Fatalf("a part of %v reads otherwise: %v", e, err)
			}
		}
	}
	pos = 0
	rows := 0
	for m, err := range v.Map(0, v.Size()) {
		if err != nil {
			wantFormat(t, err)
			return
		}
		if m.Start != pos || m.Length <= 0 || m.Depth < 0 || m.Depth > 1 || m.Zero == m.Data {
			t.Fatalf("Map: %+v after %d", m, pos)
		}
		pos = m.Start + m.Length
		if rows++; rows == most {
			return
		}
	}
	if pos != v.Size() {
		t.Fatalf("Map ends at %d of %d", pos, v.Size())
	}
}

// walkExtents collects some extents, which must ascend inside the disk.
func walkExtents(t *testing.T, v sparse.View, s sparse.Seq) (all []sparse.Extent) {
	pos := int64(-1)
	for e, err := range s {
		if errors.Is(err, qcow2.ErrBitmapDisabled) {
			break
		}
		if err != nil {
			wantFormat(t, err)
			break
		}
		if e.Off < pos || e.Off < 0 || e.Len <= 0 || e.Len > v.Size()-e.Off {
			t.Fatalf("%v after %d in a disk of %d bytes", e, pos, v.Size())
		}
		if all = append(all, e); len(all) == 300 {
			break
		}
		pos = e.End()
	}
	return all
}

// FuzzQcow2Changed edits an image and an overlay over it and checks for all
// pairs of states that what Changed does not name is equal.
func FuzzQcow2Changed(f *testing.F) {
	images := smallQcow2(f)
	for i := range images {
		f.Add(uint8(i), []byte{}, []byte{})
		f.Add(uint8(i), []byte("\x00\x00\x06\x00\x80\x00\x00\x00\x00\x00\x0e\x01"), []byte("\x00\x00\x00\x18\x00\x00\x00\x00\x00\x00\x90\x01"))
	}
	top := testimg.NewQcow2(testimg.Qcow2Options{ClusterBits: 9, Size: 70 << 10, Backing: "b", BackingFormat: "qcow2"})
	top.Write(1024, bytes.Repeat([]byte{9}, 700))
	top.Entry(0, 1, 0)
	top.Compress(40<<10, []byte("top"))
	top.Snapshot("1", "top")
	top.Entry(32<<10, 1, 0)
	overlay := top.Bytes()
	f.Fuzz(func(t *testing.T, which uint8, edits, overEdits []byte) {
		below := openQcow2(t, patched(images[int(which)%len(images)], edits), sparse.Plain(bytes.NewReader(qcow2Base), int64(len(qcow2Base))))
		if below == nil {
			return
		}
		states := qcow2States(t, below)
		if above := openQcow2(t, patched(overlay, overEdits), below.Active()); above != nil {
			states = append(states, qcow2States(t, above)...)
		}
		for _, old := range states {
			for _, new := range states {
				checkQcow2Changed(t, old, new)
			}
		}
	})
}

// checkQcow2Changed looks at the first 256 KiB of two states.
func checkQcow2Changed(t *testing.T, old, new *qcow2.View) {
	size := min(max(old.Size(), new.Size()), 256<<10)
	var named []sparse.Extent
	for e, err := range qcow2.Changed(old, new, 0, size) {
		if errors.Is(err, sparse.ErrUnrelated) {
			return
		}
		if err != nil {
			wantFormat(t, err)
			return // what it named says nothing about the rest
		}
		named = append(named, e)
	}
	read := func(v *qcow2.View, p []byte, off int64) bool {
		clear(p)
		_, err := v.ReadAt(p, off)
		return err == nil || err == io.EOF
	}
	a, b := make([]byte, 512), make([]byte, 512)
	next := 0
	for off := int64(0); off < min(size, new.Size()); off += 512 {
		if !read(old, a, off) || !read(new, b, off) {
			continue
		}
		n := min(512, size-off, new.Size()-off)
		for next < len(named) && named[next].End() <= off {
			next++
		}
		for i := next; i < len(named) && named[i].Off < off+n; i++ {
			lo, hi := max(named[i].Off-off, 0), min(named[i].End()-off, n)
			copy(a[lo:hi], b[lo:hi])
		}
		if !bytes.Equal(a[:n], b[:n]) {
			t.Fatalf("bytes at %d differ and are not named; named: %v", off, named)
		}
	}
}
