package overlay

import (
	"maps"
	"slices"

	"cbt/sparse"
)

// WriteAt implements io.WriterAt. A range that is not inside the image is an
// error, and nothing of it is written.
func (o *Image) WriteAt(p []byte, off int64) (int, error) {
	if err := sparse.CheckRange(off, int64(len(p)), o.size); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	// In place, if the file has all of it already.
	if s, end := o.run(off, off+int64(len(p))); s == inFile && end == off+int64(len(p)) {
		return o.file.WriteAt(p, o.data+off)
	}
	o.change.Lock()
	defer o.change.Unlock()
	for at := 0; at < len(p); {
		pos := off + int64(at)
		n := min(BlockSize-int(pos%BlockSize), len(p)-at)
		if n == BlockSize {
			n = (len(p) - at) / BlockSize * BlockSize
		}
		if err := o.put(p[at:at+n], pos); err != nil {
			return at, err
		}
		at += n
	}
	return len(p), nil
}

// put writes whole blocks, or a part of one. o.change is held.
func (o *Image) put(p []byte, off int64) error {
	block := off / BlockSize
	blocks := (int64(len(p)) + BlockSize - 1) / BlockSize
	if s := o.states.get(block); len(p)%BlockSize != 0 && s != inFile {
		whole := make([]byte, BlockSize)
		if s == inBase {
			inside := whole[:min(BlockSize, o.size-block*BlockSize)]
			if _, err := sparse.ReadFull(o.base, inside, block*BlockSize); err != nil {
				return err
			}
		}
		copy(whole[off%BlockSize:], p)
		p, off = whole, block*BlockSize
	}
	if _, err := o.file.WriteAt(p, o.data+off); err != nil {
		return err
	}
	o.states.set(block, blocks, inFile)
	return nil
}

// Zero makes [off, off+n) read as zeros; what whole blocks took in the file is
// given back.
func (o *Image) Zero(off, n int64) error {
	if err := sparse.CheckRange(off, n, o.size); err != nil {
		return err
	}
	end := off + n
	first, last := (off+BlockSize-1)/BlockSize, end/BlockSize
	if end == o.size {
		last = (end + BlockSize - 1) / BlockSize
	}
	if first >= last {
		return o.writeZeros(off, end)
	}
	if err := o.writeZeros(off, first*BlockSize); err != nil {
		return err
	}
	if err := o.zeroBlocks(first, last); err != nil {
		return err
	}
	return o.writeZeros(last*BlockSize, end)
}

// zeroBlocks holds the lock until the hole is there: it must not swallow what
// somebody writes afterwards. The bits count, so a file system that has no
// holes does not matter.
func (o *Image) zeroBlocks(first, last int64) error {
	o.change.Lock()
	defer o.change.Unlock()
	held := false
	for b := first; b < last && !held; {
		s, end := o.states.run(b, last)
		held = s == inFile
		b = end
	}
	o.states.set(first, last-first, zeros)
	if !held {
		return nil
	}
	return o.file.Zero(o.data+first*BlockSize, (last-first)*BlockSize)
}

func (o *Image) writeZeros(from, to int64) error {
	if from >= to {
		return nil
	}
	_, err := o.WriteAt(make([]byte, to-from), from)
	return err
}

// Sync returns when all that was written before survives a loss of power.
func (o *Image) Sync() error {
	o.sync.Lock()
	defer o.sync.Unlock()
	o.change.Lock()
	dirty := o.states.takeDirty()
	o.change.Unlock()
	err := o.file.Sync()
	if len(dirty) == 0 {
		return err
	}
	for _, page := range slices.Sorted(maps.Keys(dirty)) {
		if err != nil {
			break
		}
		_, err = o.file.WriteAt(dirty[page], headerSize+page*pageSize)
	}
	if err == nil {
		err = o.file.Sync()
	}
	if err != nil {
		o.change.Lock()
		o.states.markDirty(dirty)
		o.change.Unlock()
	}
	return err
}
