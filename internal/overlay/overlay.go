// Package overlay makes an image that may be written to of one that may not:
// what is written goes to a file of its own, and is read from there.
//
// # The file
//
// A header of 4,096 bytes; two bits for each block of 4,096 bytes of the
// image, rounded up to whole pages of 4,096 bytes (64 MiB of the image each);
// then, from the next multiple of 1 MiB on, the blocks, each as far from there
// as it is from the image's start. The file is sparse: it takes as much as was
// written. The bits say whether a block is the base's, the file's, or zeros;
// they are written by Sync, after the blocks that they speak of, so that what
// a killed process leaves is what it was at its last Sync, or newer by blocks
// that had been written before.
package overlay

import (
	"errors"
	"fmt"
	"sync"

	"cbt/sparse"
)

// BlockSize is the unit in bytes of what an overlay holds.
const BlockSize = 4096

// maxSize bounds the memory for the pointers to the pages of bits: 32 MiB.
const maxSize = 1 << 48

// Image is a base with what was written over it. All methods are safe for
// concurrent use; the order of overlapping calls is not defined, as with any
// disk. The size cannot change.
type Image struct {
	base sparse.View
	file sparse.Target
	data int64 // offset of block 0 in file
	size int64

	states states
	change sync.Mutex // held while the state of a block changes
	sync   sync.Mutex
}

// Open makes an overlay of base in file, or goes on with the one that is
// there. identity says what the base is; another one, or another size, is
// ErrOtherBase: the blocks of an overlay mean nothing over other bytes. If only what
// is behind a + in it is another it is ErrOtherTimes. The caller keeps other
// processes away from file, and closes it.
func Open(base sparse.View, identity string, file sparse.Target) (*Image, error) {
	return openImage(base, identity, file, false)
}

// Adopt is Open for a base of which the user says that nobody wrote to it: what is
// behind the + is noted anew.
func Adopt(base sparse.View, identity string, file sparse.Target) (*Image, error) {
	return openImage(base, identity, file, true)
}

func openImage(base sparse.View, identity string, file sparse.Target, adopt bool) (*Image, error) {
	o := &Image{base: base, file: file, size: base.Size()}
	if o.size > maxSize {
		return nil, fmt.Errorf("an image of %d bytes is too large for an overlay: %d are the limit", o.size, int64(maxSize))
	}
	pages := (o.size + pageSpan - 1) / pageSpan
	o.data = (headerSize + pages*pageSize + dataAlign - 1) / dataAlign * dataAlign
	o.states.init(pages)
	h := newHeader(o.size, identity)
	total := o.data + (o.size+BlockSize-1)/BlockSize*BlockSize
	if file.Size() == 0 {
		if err := file.Truncate(total); err != nil {
			return nil, err
		}
		if _, err := file.WriteAt(h.encode(), 0); err != nil {
			return nil, err
		}
		return o, file.Sync()
	}
	err := h.check(file)
	if err != nil && !(adopt && errors.Is(err, ErrOtherTimes)) {
		return nil, err
	}
	if file.Size() != total {
		return nil, &sparse.FormatError{Struct: "overlay", Off: 0, Field: "size", Value: file.Size(), Msg: fmt.Sprintf("should be %d bytes", total)}
	}
	if err != nil {
		if _, err := file.WriteAt(h.encode(), 0); err != nil {
			return nil, err
		}
	}
	return o, o.states.load(file, (o.size+BlockSize-1)/BlockSize)
}

// Size is that of the base, in bytes.
func (o *Image) Size() int64 { return o.size }

// Written is how many bytes the overlay's file holds blocks of.
func (o *Image) Written() int64 { return o.states.count() * BlockSize }

// ReadAt implements io.ReaderAt.
func (o *Image) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, o.size)
	for at := 0; at < len(p); {
		pos := off + int64(at)
		state, end := o.run(pos, off+int64(len(p)))
		part := p[at : at+int(end-pos)]
		var err error
		switch state {
		case inBase:
			_, err = sparse.ReadFull(o.base, part, pos)
		case inFile:
			_, err = sparse.ReadFull(o.file, part, o.data+pos)
		default:
			clear(part)
		}
		if err != nil {
			return at, err
		}
		at += len(part)
	}
	return len(p), eof
}

// run is the state of the block at pos, and how far from there to limit it
// goes on.
func (o *Image) run(pos, limit int64) (state, int64) {
	s, end := o.states.run(pos/BlockSize, (limit+BlockSize-1)/BlockSize)
	return s, min(limit, end*BlockSize)
}

// Extents implements sparse.View.
func (o *Image) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, o.size); err != nil {
		return sparse.Fail(err)
	}
	return sparse.Coalesce(func(yield func(sparse.Extent, error) bool) {
		for pos := off; pos < off+n; {
			state, end := o.run(pos, off+n)
			switch e := (sparse.Extent{Off: pos, Len: end - pos, Kind: sparse.Data}); state {
			case inBase:
				for b, err := range o.base.Extents(e.Off, e.Len) {
					if !yield(b, err) || err != nil {
						return
					}
				}
			case zeros:
				e.Kind = sparse.Zero
				fallthrough
			default:
				if !yield(e, nil) {
					return
				}
			}
			pos = end
		}
	})
}
