package tree

import (
	"container/list"
	"context"
	"errors"
	"io"
	"sync"

	"cbt/internal/ordered"
)

// ErrClosed says that a pool was closed.
var ErrClosed = errors.New("closed")

// Pool keeps open what is costly to open: all that is in use, and of the rest
// those that were used last. It is safe for concurrent use.
type Pool[K comparable, T io.Closer] struct {
	idle int

	mu     sync.Mutex
	items  map[K]*item[K, T]
	unused list.List // of *item, used last first
	closed bool
}

type item[K comparable, T io.Closer] struct {
	key    K
	ready  chan struct{} // closed when val and err are there
	val    T
	err    error
	users  int
	unused *list.Element
}

// NewPool returns a pool that keeps up to idle things open that nobody uses.
func NewPool[K comparable, T io.Closer](idle int) *Pool[K, T] {
	return &Pool[K, T]{idle: idle, items: map[K]*item[K, T]{}}
}

// Get returns what key stands for, opening it if it is not open; several that
// ask for it at once wait for one opening, each until its own ctx is done. That
// does not end the opening, which has its own. Call release when done with it.
func (p *Pool[K, T]) Get(ctx context.Context, key K, open func() (T, error)) (_ T, release func(), _ error) {
	var none T
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return none, nil, ErrClosed
	}
	it := p.items[key]
	if it == nil {
		it = &item[K, T]{key: key, ready: make(chan struct{})}
		p.items[key] = it
		go it.open(open)
	}
	it.users++
	if it.unused != nil {
		p.unused.Remove(it.unused)
		it.unused = nil
	}
	p.mu.Unlock()

	var once sync.Once
	done := func() { once.Do(func() { p.release(it) }) }
	select {
	case <-it.ready:
	case <-ctx.Done():
		// Whoever comes next finds it open.
		go func() {
			<-it.ready
			done()
		}()
		return none, nil, context.Cause(ctx)
	}
	if it.err != nil {
		done()
		return none, nil, it.err
	}
	return it.val, done, nil
}

func (it *item[K, T]) open(open func() (T, error)) {
	defer close(it.ready)
	defer ordered.Caught(&it.err)
	it.val, it.err = open()
}

// release gives up one use of it, which is open, or has failed to.
func (p *Pool[K, T]) release(it *item[K, T]) {
	p.mu.Lock()
	it.users--
	switch {
	case it.err != nil && p.items[it.key] == it:
		delete(p.items, it.key) // to be tried again
	case it.err == nil && it.users == 0:
		it.unused = p.unused.PushFront(it)
	}
	drop := p.drop()
	p.mu.Unlock()
	for _, old := range drop {
		_ = old.val.Close() // it was only read
	}
}

// drop takes out what is not to be kept, for the caller to close without the
// lock: closing may release what is in this pool too.
func (p *Pool[K, T]) drop() (list []*item[K, T]) {
	keep := p.idle
	if p.closed {
		keep = 0
	}
	for p.unused.Len() > keep {
		it := p.unused.Remove(p.unused.Back()).(*item[K, T])
		delete(p.items, it.key)
		list = append(list, it)
	}
	return list
}

// Close closes what nobody uses; the rest is closed when it is released.
func (p *Pool[K, T]) Close() error {
	p.mu.Lock()
	p.closed = true
	drop := p.drop()
	p.mu.Unlock()
	var err error
	for _, it := range drop {
		err = errors.Join(err, it.val.Close())
	}
	return err
}
