// Package lru is a cache bounded by the cost of what it holds.
package lru

import (
	"container/list"
	"errors"
	"sync"
)

var errPanicked = errors.New("loading failed before")

// Cache keeps the most recently used values whose costs, in bytes, add up to
// at most its limit (one value may exceed it alone). It is safe for
// concurrent use; a value that several goroutines ask for is loaded once.
type Cache[K comparable, V any] struct {
	limit int64
	free  func(V)

	mu     sync.Mutex
	cost   int64
	recent list.List // of *entry, most recently used first
	byKey  map[K]*list.Element
}

type entry[K comparable, V any] struct {
	key  K
	cost int64
	load sync.Once
	done bool // val is loaded
	lent int  // to how many
	gone bool // from the cache
	val  V
	err  error
}

// New returns an empty cache.
func New[K comparable, V any](limit int64) *Cache[K, V] {
	return &Cache[K, V]{limit: limit, byKey: make(map[K]*list.Element)}
}

// NewLending is New for values that free gets back once they are neither in the
// cache nor lent. They must be asked for with Borrow alone. free must not use
// the cache.
func NewLending[K comparable, V any](limit int64, free func(V)) *Cache[K, V] {
	c := New[K, V](limit)
	c.free = free
	return c
}

// Get returns the value of key, loading it if it is not there. cost is an
// upper bound of what it will occupy. A failed load is not kept.
func (c *Cache[K, V]) Get(key K, cost int64, load func() (V, error)) (V, error) {
	e, err := c.get(key, cost, 0, load)
	return e.val, err
}

// Borrow is Get of a value that is used until giveBack is called, once.
func (c *Cache[K, V]) Borrow(key K, cost int64, load func() (V, error)) (v V, giveBack func(), err error) {
	e, err := c.get(key, cost, 1, load)
	return e.val, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		e.lent--
		c.release(e)
	}, err
}

func (c *Cache[K, V]) get(key K, cost int64, lent int, load func() (V, error)) (*entry[K, V], error) {
	c.mu.Lock()
	el, ok := c.byKey[key]
	if ok {
		c.recent.MoveToFront(el)
	} else {
		el = c.recent.PushFront(&entry[K, V]{key: key, cost: cost})
		c.byKey[key] = el
		c.cost += cost
	}
	e := el.Value.(*entry[K, V])
	e.lent += lent
	c.shrink()
	c.mu.Unlock()

	e.load.Do(func() {
		e.err = errPanicked // what others see if load does not return
		e.val, e.err = load()
		c.mu.Lock()
		e.done = e.err == nil
		c.mu.Unlock()
	})
	if e.err != nil {
		c.mu.Lock()
		if c.byKey[key] == el {
			c.remove(el)
		}
		c.mu.Unlock()
	}
	return e, e.err
}

// release frees what nobody uses any more.
func (c *Cache[K, V]) release(e *entry[K, V]) {
	if c.free != nil && e.gone && e.lent == 0 && e.done {
		e.done = false
		c.free(e.val)
	}
}

// Peek returns the value of key if it is there, and waits for nothing.
func (c *Cache[K, V]) Peek(key K) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.byKey[key]
	if el == nil || !el.Value.(*entry[K, V]).done {
		return v, false
	}
	c.recent.MoveToFront(el)
	return el.Value.(*entry[K, V]).val, true
}

// Recost says what the value of key really occupies, if it is there still. A
// load may say so of its own key, when it knows.
func (c *Cache[K, V]) Recost(key K, cost int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byKey[key]
	if !ok {
		return
	}
	e := el.Value.(*entry[K, V])
	c.cost += cost - e.cost
	e.cost = cost
	c.shrink()
}

// Remove forgets the value of key.
func (c *Cache[K, V]) Remove(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.byKey[key]; ok {
		c.remove(el)
	}
}

func (c *Cache[K, V]) shrink() {
	for c.cost > c.limit && c.recent.Len() > 1 {
		c.remove(c.recent.Back())
	}
}

func (c *Cache[K, V]) remove(el *list.Element) {
	e := c.recent.Remove(el).(*entry[K, V])
	delete(c.byKey, e.key)
	c.cost -= e.cost
	e.gone = true
	c.release(e)
}
