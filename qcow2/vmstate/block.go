package vmstate

import (
	"fmt"
	"io"
	"sync"

	"cbt/sparse"
)

// Block is a RAM block: a piece of the guest's memory that has a name in QEMU. It implements
// sparse.View: zero pages are holes.
type Block struct {
	Name string
	// Address is the guest physical address of the region that holds the block, in streams with
	// x-ignore-shared. It is 0 in others, which do not contain it.
	Address uint64
	// Shared means that a stream with x-ignore-shared has no page of this block: its content lies
	// in the file that backs the memory. Such a block cannot be read.
	Shared bool

	length int64 // in bytes
	state  *State
	index  index
	told   bool // a record of it was seen
}

// Size returns the block's length in bytes (used_length).
func (b *Block) Size() int64 { return b.length }

// Pages returns the number of pages of the block.
func (b *Block) Pages() int64 { return b.index.pages }

// Stored returns the number of pages for which the state stores bytes. In a stream these are the
// pages that are not zero. What mapped-ram stores is not examined, and QEMU stores zero pages there
// too when its search for them is off.
func (b *Block) Stored() int64 { return b.index.stored }

func (b *Block) shared() error {
	return fmt.Errorf("RAM block %q: its content is not in the state (x-ignore-shared) but in the file that backs it", b.Name)
}

// readable returns the reason why a block cannot be read, or nil.
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

// Pages that lie close together are read at once, along with the headers between them.
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
		// Pages [first, last) lie one after another in the file.
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

// readPlace fills p with the bytes from skip bytes after pl on.
func (s *State) readPlace(p []byte, pl place, skip int64) error {
	var r io.ReaderAt = s.src
	if pl&inTemp != 0 {
		r = s.temp
	}
	_, err := sparse.ReadFull(r, p, pl.offset()+skip)
	return err
}
