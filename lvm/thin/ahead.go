package thin

import (
	"fmt"
	"sync"
	"sync/atomic"
)

const (
	maxAhead   = 128 // leaves read ahead: 512 KiB for each walk
	chunk      = 16  // leaves read by one goroutine at a time
	maxReaders = 8   // goroutines of a walk
)

// ahead reads the leaves below one internal node. It starts with one, and
// doubles as long as each one that it read was wanted.
type ahead struct {
	buf    []byte
	blocks []uint64 // children read, those of entries first, first+1, ...
	parent uint64   // block of the internal node
	first  int
	window int // how many to read next
	chunks []loading
	active sync.WaitGroup
}

// loading is the reading of a chunk of blocks, which is done by whoever claims
// it first.
type loading struct {
	claimed atomic.Bool
	done    chan struct{} // closed when it is over
	errs    [chunk]error
}

func (a *ahead) wait() { a.active.Wait() }

// stop begins with one leaf again.
func (a *ahead) stop() { a.window = 1 }

// next is the leaf at the top of w.
func (a *ahead) next(w *walk) (node, error) {
	f := &w.frames[w.depth-1]
	at := f.i - a.first
	if f.block != a.parent || at < 0 || at >= len(a.blocks) {
		a.choose(w, f)
		if len(a.blocks) == 1 {
			// Alone it may be wanted again, as in a walk of few changes.
			a.blocks = a.blocks[:0]
			return w.m.node(f.node.child(f.i), w.kind, w.t)
		}
		a.start(w)
		at = 0
	}
	l := &a.chunks[at/chunk]
	// Waiting for a reader to be given a processor would cost more than to read.
	a.claim(w, at/chunk)
	<-l.done
	return a.buf[at*BlockSize:][:BlockSize], l.errs[at%chunk]
}

// choose selects the leaf at entry i of f and some that follow it.
func (a *ahead) choose(w *walk, f *frame) {
	a.wait()
	a.parent, a.first = f.block, f.i
	a.blocks = a.blocks[:0]
	window := max(1, a.window)
	a.window = min(2*window, maxAhead)
	for i := f.i; i < f.node.len() && len(a.blocks) < window; i++ {
		if i > f.i && (f.node.key(i) > w.hi || w.other.mayShare(f, i)) {
			break
		}
		a.blocks = append(a.blocks, f.node.child(i))
	}
}

// start reads the chosen leaves.
func (a *ahead) start(w *walk) {
	if need := len(a.blocks) * BlockSize; len(a.buf) < need {
		a.buf = make([]byte, need)
	}
	w.m.read.Add(int64(len(a.blocks)))
	chunks := (len(a.blocks) + chunk - 1) / chunk
	if len(a.chunks) < chunks {
		a.chunks = make([]loading, maxAhead/chunk)
	}
	for c := range chunks {
		a.chunks[c].claimed.Store(false)
		a.chunks[c].done = make(chan struct{})
	}
	for range min(chunks-1, maxReaders) {
		a.active.Go(func() {
			for c := 1; c < chunks; c++ {
				a.claim(w, c)
			}
		})
	}
}

// claim loads a chunk unless that was begun.
func (a *ahead) claim(w *walk, c int) {
	if l := &a.chunks[c]; l.claimed.CompareAndSwap(false, true) {
		defer close(l.done)
		a.load(w, c)
	}
}

// load reads and verifies one chunk, contiguous blocks at once.
func (a *ahead) load(w *walk, c int) {
	l := &a.chunks[c]
	defer func() {
		if p := recover(); p != nil {
			for i := range l.errs {
				l.errs[i] = fmt.Errorf("reading thin metadata: panic: %v", p)
			}
		}
	}()
	blocks := a.blocks[c*chunk : min(len(a.blocks), (c+1)*chunk)]
	buf := a.buf[c*chunk*BlockSize:]
	for i := 0; i < len(blocks); {
		n := 1
		for i+n < len(blocks) && blocks[i+n] == blocks[i]+uint64(n) {
			n++
		}
		failed := w.m.dev.read(buf[i*BlockSize:(i+n)*BlockSize], blocks[i], w.t.node)
		for j := i; j < i+n; j++ {
			b, err := buf[j*BlockSize:(j+1)*BlockSize], failed
			if failed != nil && n > 1 { // which of the run it was
				err = w.m.dev.read(b, blocks[j], w.t.node)
			}
			if err == nil {
				err = w.m.verify(b, blocks[j], w.kind, w.t)
			}
			l.errs[j] = err
		}
		i += n
	}
}

// mayShare reports whether w, running beside another walk, has or may have the
// child i of that one's f too.
func (w *walk) mayShare(f *frame, i int) bool {
	if w == nil {
		return false
	}
	key, block := f.node.key(i), f.node.child(i)
	if !w.begun {
		return true
	}
	if w.depth == 0 {
		return false
	}
	// The node of w that is on one level with f, above the leaves.
	d := w.depth - 1
	if w.frames[d].node.leaf() {
		d--
	}
	if d < 0 {
		return false // the root is a leaf, and is being read
	}
	g := &w.frames[d]
	if w.height != 0 && g.place.depth != w.height-2 {
		return true
	}
	if key > g.place.hi {
		return true // in a node that w has not come to yet
	}
	return g.node.child(g.node.findChild(key)) == block
}
