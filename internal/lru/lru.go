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

	mu     sync.Mutex
	cost   int64
	recent list.List // of *entry, most recently used first
	byKey  map[K]*list.Element
}

type entry[K comparable, V any] struct {
	key  K
	cost int64
	load sync.Once
	done bool // val may be taken by Peek
	val  V
	err  error
}

// New returns an empty cache.
func New[K comparable, V any](limit int64) *Cache[K, V] {
	return &Cache[K, V]{limit: limit, byKey: make(map[K]*list.Element)}
}

// Get returns the value of key, loading it if it is not there. cost is an
// upper bound of what it will occupy. A failed load is not kept.
func (c *Cache[K, V]) Get(key K, cost int64, load func() (V, error)) (V, error) {
	c.mu.Lock()
	el, ok := c.byKey[key]
	if ok {
		c.recent.MoveToFront(el)
	} else {
		el = c.recent.PushFront(&entry[K, V]{key: key, cost: cost})
		c.byKey[key] = el
		c.cost += cost
		c.shrink()
	}
	c.mu.Unlock()

	e := el.Value.(*entry[K, V])
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
	return e.val, e.err
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
}
