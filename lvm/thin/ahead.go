package thin

import (
	"fmt"
	"sync"
	"sync/atomic"
)

const (
	maxAhead   = 128 // most leaves of a batch: 512 KiB
	chunk      = 64  // leaves that one goroutine reads at a time
	maxReaders = 2   // goroutines of a batch
)

// ahead reads leaves before the walk needs them. It starts with one at a time, and doubles the
// number as long as each leaf that it read was wanted. Once the number is large, it reads the next
// batch while the walk is still in the current one.
type ahead struct {
	window    int // how many to read next
	batches   [2]batch
	now, then *batch // then is the batch after now; both are nil at the start
}

// batch is a run of leaves below one internal node.
type batch struct {
	parent  uint64 // block of the internal node
	first   int    // index of its entry for the first leaf
	blocks  []uint64
	buf     []byte
	chosen  chan struct{} // closed when the leaves to read have been chosen; nil: none are
	chunks  [maxAhead / chunk]loading
	readers sync.WaitGroup
}

// loading is the reading of a chunk of leaves. Whichever goroutine claims it first does it.
type loading struct {
	claimed atomic.Bool
	done    chan struct{} // closed when reading has ended
	errs    [chunk]error
}

func (a *ahead) wait() {
	for i := range a.batches {
		a.batches[i].readers.Wait()
	}
}

// stop makes the next batch start with one leaf again.
func (a *ahead) stop() { a.window = 1 }

// next returns the leaf at the top of w. It is valid until the next call.
func (a *ahead) next(w *walk) (node, error) {
	f := &w.frames[w.depth-1]
	if a.now == nil {
		a.now, a.then = &a.batches[0], &a.batches[1]
	}
	if !a.now.has(f) {
		switch a.now, a.then = a.then, a.now; {
		case !a.now.has(f):
			a.now.readers.Wait()
			a.now.begin()
			a.now.choose(w, *f, w.other.beside(), a.grow())
			if len(a.now.blocks) == 1 {
				// A single leaf may be wanted again, as in a walk over few changes.
				a.now.blocks = a.now.blocks[:0]
				close(a.now.chosen)
				return w.m.node(f.node.child(f.i), w.kind, w.t)
			}
			a.now.start(w, 1)
			fallthrough
		default:
			a.follow(w)
		}
	}
	return a.now.leaf(w, f.i-a.now.first)
}

func (a *ahead) grow() int {
	n := max(1, a.window)
	a.window = min(2*n, maxAhead)
	return n
}

// follow starts to read what comes after the current batch.
func (a *ahead) follow(w *walk) {
	b := a.then
	b.readers.Wait()
	b.begin()
	if a.window < maxAhead {
		close(b.chosen)
		return
	}
	at, o := w.path(), w.other.beside()
	at.low.i = a.now.first + len(a.now.blocks)
	b.readers.Go(func() {
		at, ok := b.chooseAfter(w, at, o)
		b.start(w, 0)
		if ok {
			at.following(w, o) // reads the node that the next batch needs
		}
	})
}

func (b *batch) begin() {
	b.parent, b.first, b.blocks, b.chosen = 0, 0, b.blocks[:0], make(chan struct{})
}

// has reports whether the leaf at entry i of f is in the batch.
func (b *batch) has(f *frame) bool {
	if b.chosen == nil {
		return false
	}
	<-b.chosen
	return b.parent == f.block && f.i >= b.first && f.i-b.first < len(b.blocks)
}

// choose selects the leaf at f and up to window-1 leaves after it.
func (b *batch) choose(w *walk, f frame, o beside, window int) {
	b.parent, b.first, b.blocks = f.block, f.i, append(b.blocks[:0], f.node.child(f.i))
	b.extend(w, f, o, window)
}

// extend selects more leaves below f, as long as they are certain to be needed.
func (b *batch) extend(w *walk, f frame, o beside, window int) {
	for i := f.i + len(b.blocks); i < f.node.len() && len(b.blocks) < window; i++ {
		key, block := f.node.key(i), f.node.child(i)
		if key > w.hi || o.mayShare(key, block) {
			return
		}
		b.blocks = append(b.blocks, block)
	}
}

// chooseAfter selects leaves from at on. If none are left in at's internal node, it takes the next
// one. It returns the place of the leaves.
func (b *batch) chooseAfter(w *walk, at path, o beside) (_ path, ok bool) {
	defer func() {
		if recover() != nil { // read nothing ahead: the fault is found when the walk reads it
			b.blocks, ok = b.blocks[:0], false
		}
	}()
	if at.low.i == at.low.node.len() {
		if at, ok = at.following(w, o); !ok {
			return at, false
		}
	}
	b.parent, b.first = at.low.block, at.low.i
	b.extend(w, at.low, o, maxAhead)
	return at, true
}

// start reads the chosen leaves from chunk c on.
func (b *batch) start(w *walk, c int) {
	if need := len(b.blocks) * BlockSize; len(b.buf) < need {
		b.buf = make([]byte, maxAhead*BlockSize)
	}
	chunks := (len(b.blocks) + chunk - 1) / chunk
	for i := range chunks {
		b.chunks[i].claimed.Store(false)
		b.chunks[i].done = make(chan struct{})
	}
	close(b.chosen)
	for range min(chunks-c, maxReaders) {
		b.readers.Go(func() {
			for i := c; i < chunks; i++ {
				b.claim(w, i)
			}
		})
	}
}

// leaf returns leaf i of the batch.
func (b *batch) leaf(w *walk, i int) (node, error) {
	l := &b.chunks[i/chunk]
	// Waiting for a reader to get a processor would cost more than reading.
	b.claim(w, i/chunk)
	<-l.done
	return b.buf[i*BlockSize:][:BlockSize], l.errs[i%chunk]
}

// claim loads a chunk, unless another goroutine has claimed it.
func (b *batch) claim(w *walk, c int) {
	if l := &b.chunks[c]; l.claimed.CompareAndSwap(false, true) {
		defer close(l.done)
		b.load(w, c)
	}
}

// load reads and verifies one chunk, contiguous blocks at once.
func (b *batch) load(w *walk, c int) {
	l := &b.chunks[c]
	defer func() {
		if p := recover(); p != nil {
			for i := range l.errs {
				l.errs[i] = fmt.Errorf("reading thin metadata: panic: %v", p)
			}
		}
	}()
	blocks := b.blocks[c*chunk : min(len(b.blocks), (c+1)*chunk)]
	buf := b.buf[c*chunk*BlockSize:]
	for i := 0; i < len(blocks); {
		n := 1
		for i+n < len(blocks) && blocks[i+n] == blocks[i]+uint64(n) {
			n++
		}
		w.m.read.Add(int64(n))
		failed := w.m.dev.read(buf[i*BlockSize:(i+n)*BlockSize], blocks[i], w.t.node)
		for j := i; j < i+n; j++ {
			leaf, err := buf[j*BlockSize:(j+1)*BlockSize], failed
			if failed != nil && n > 1 { // find out which one of the run failed
				err = w.m.dev.read(leaf, blocks[j], w.t.node)
			}
			if err == nil {
				err = w.m.verify(leaf, blocks[j], w.kind, w.t)
			}
			l.errs[j] = err
		}
		i += n
	}
}
