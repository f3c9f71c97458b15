package vmstate

import (
	"fmt"
	"io"
	"sync"

	"cbt/sparse"
)

// Block is a RAM block: a piece of the guest's memory that QEMU has a name
// for. It implements sparse.View: pages that are zero are holes.
type Block struct {
	Name string
	// Address is the guest physical address of the region that holds the block,
	// for streams with x-ignore-shared; 0 in others, which do not tell.
	Address uint64
	// Shared says that a stream with x-ignore-shared has no page of this block:
	// its content lies in the file that backs the memory. Such a block cannot be read.
	Shared bool

	length int64 // bytes
	state  *State
	index  index
	told   bool // a record of it was seen
}

// Size is the block's length in bytes (used_length).
func (b *Block) Size() int64 { return b.length }

// Pages is the number of pages of the block.
func (b *Block) Pages() int64 { return b.index.pages }

// Stored is the number of pages that the state has bytes for. Of a stream these
// are the pages that are not zero; what mapped-ram stores is not looked at, and
// QEMU stores zero pages there too when its search for them is off.
func (b *Block) Stored() int64 { return b.index.stored }

func (b *Block) shared() error {
	return fmt.Errorf("RAM block %q: its content is not in the state (x-ignore-shared) but in the file that backs it", b.Name)
}

// readable says why a block cannot be read, if it cannot.
func (b *Block) readable() error {
	switch {
	case b.Shared:
		return b.shared()
	case b.state.skimmed:
		return fmt.Errorf("RAM block %q: its pages were not unpacked", b.Name)
	case b.state.HeadOnly:
		return fmt.Errorf("RAM block %q: only the head of the state was unpacked", b.Name)
	}
	return nil
}

// Extents implements sparse.View.
func (b *Block) Extents(off, n int64) sparse.Seq {
	if err := sparse.CheckRange(off, n, b.length); err != nil {
		return sparse.Fail(err)
	}
	if err := b.readable(); err != nil {
		return sparse.Fail(err)
	}
	return func(yield func(sparse.Extent, error) bool) {
		size := b.state.PageSize
		for at, end := off, off+n; at < end; {
			last, stored := b.index.run(at/size, (end+size-1)/size)
			e := sparse.Extent{Off: at, Len: min(last*size, end) - at, Kind: sparse.Hole}
			if stored {
				e.Kind = sparse.Data
			}
			if !yield(e, nil) {
				return
			}
			at = e.End()
		}
	}
}

// Pages that lie close together are read at once, the headers between them
// included.
const (
	maxSpan = 512 << 10
	maxGap  = 1 << 10
)

var spans = sync.Pool{New: func() any { return new([maxSpan]byte) }}

// ReadAt implements sparse.View.
func (b *Block) ReadAt(p []byte, off int64) (int, error) {
	p, eof := sparse.ClipRead(p, off, b.length)
	if len(p) == 0 {
		return 0, eof
	}
	if err := b.readable(); err != nil {
		return 0, err
	}
	span := spans.Get().(*[maxSpan]byte)
	defer spans.Put(span)
	size := b.state.PageSize
	for done := 0; done < len(p); {
		at := off + int64(done)
		first := at / size
		pl := b.index.get(first)
		if pl == 0 {
			last, _ := b.index.run(first, (off+int64(len(p))+size-1)/size)
			n := min(int(last*size-at), len(p)-done)
			clear(p[done:][:n])
			done += n
			continue
		}
		// [first, last) lie one after another in the file.
		last, end := first+1, pl.offset()+size
		for last*size < off+int64(len(p)) {
			next := b.index.get(last)
			if next == 0 || next&inTemp != pl&inTemp || next.offset() < end || next.offset()-end > maxGap || next.offset()+size-pl.offset() > maxSpan {
				break
			}
			last, end = last+1, next.offset()+size
		}
		n := min(int(last*size-at), len(p)-done)
		var err error
		if end-pl.offset() == (last-first)*size {
			err = b.state.readPlace(p[done:][:n], pl, at-first*size)
		} else if err = b.state.readPlace(span[:end-pl.offset()], pl, 0); err == nil {
			for got := 0; got < n; {
				at := off + int64(done+got)
				from := b.index.get(at/size).offset() - pl.offset()
				got += copy(p[done+got:][:n-got], span[from:][:size][at%size:])
			}
		}
		if err != nil {
			return done, fmt.Errorf("RAM block %q at 0x%x: %w", b.Name, at, err)
		}
		done += n
	}
	return len(p), eof
}

// readPlace fills p from skip bytes behind pl on.
func (s *State) readPlace(p []byte, pl place, skip int64) error {
	var r io.ReaderAt = s.src
	if pl&inTemp != 0 {
		r = s.temp
	}
	_, err := sparse.ReadFull(r, p, pl.offset()+skip)
	return err
}
