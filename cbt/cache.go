package cbt

import (
	"sync"

	"cbt/internal/lru"
)

// decoded holds decoded parts of one or several deltas.
type decoded struct {
	leaves   *lru.Cache[partKey, []chunkRef]
	tables   *lru.Cache[partKey, *table]
	payloads *lru.Cache[partKey, []byte]
	buffers  chan []byte // of maxPayload bytes, for reuse
}

type partKey struct {
	d *Delta
	n uint64
}

const ( // bytes
	leafCache    = 4 << 20
	tableCache   = 4 << 20
	payloadCache = 16 << 20
	regionCache  = 12 << 20
)

func newDecoded() *decoded {
	c := &decoded{
		leaves:  lru.New[partKey, []chunkRef](leafCache),
		tables:  lru.New[partKey, *table](tableCache),
		buffers: make(chan []byte, 4),
	}
	c.payloads = lru.NewLending[partKey](payloadCache, func(b []byte) {
		if cap(b) == maxPayload {
			select {
			case c.buffers <- b:
			default:
			}
		}
	})
	return c
}

// buffer returns room for a payload of n bytes, from an earlier payload if possible.
func (c *decoded) buffer(n int) []byte {
	if c.room(n) < maxPayload {
		return make([]byte, n)
	}
	select {
	case b := <-c.buffers:
		return b[:n]
	default:
		return make([]byte, n, maxPayload)
	}
}

// room returns the bytes of memory that a payload of n bytes takes. Large payloads all take the
// same, so that the next one can have the place of the last. Otherwise, when the garbage collector
// is late, a megabyte would pile up for each read.
func (c *decoded) room(n int) int64 {
	if n > maxPayload/2 {
		return maxPayload
	}
	return int64(n)
}

// Cache is what all stacks made with it share: at most 36 MiB of decoded parts and of maps that say
// where each byte comes from. A delta that is in several stacks is held once. It is safe for
// concurrent use.
type Cache struct {
	decoded *decoded
	regions *lru.Cache[*span, *region]
	limits  limits
	build   sync.Mutex    // one region at a time, to bound the memory
	ahead   chan struct{} // as many elements as goroutines are reading ahead

	mu     sync.Mutex
	deltas map[*Delta]*Delta // copies that use this cache instead of their own
	chains map[link]*chain
}

// chain is a layer and all layers before it. Chains that begin alike share their beginning.
type chain struct {
	link
	base int64 // bytes of the full layer that no later one cut off
	root span  // the whole image, for the maps of this chain
}

type link struct {
	Layer
	before *chain // nil: the layer is full
}

// NewCache returns an empty cache.
func NewCache() *Cache {
	return &Cache{
		decoded: newDecoded(),
		regions: lru.New[*span, *region](regionCache),
		limits:  defaultLimits,
		ahead:   make(chan struct{}, readersAhead),
		deltas:  map[*Delta]*Delta{},
		chains:  map[link]*chain{},
	}
}

// layers returns copies of the layers that use c as their cache.
func (c *Cache) layers(list []Layer) []Layer {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := make([]Layer, len(list))
	for i, l := range list {
		d := c.deltas[l.Delta]
		if d == nil {
			with := *l.Delta
			with.cache = c.decoded
			d = &with
			c.deltas[l.Delta] = d
		}
		own[i] = Layer{d, l.Stream}
	}
	return own
}

// chain returns the chain of layers, which must have been checked and use c as their cache.
func (c *Cache) chain(layers []Layer) *chain {
	c.mu.Lock()
	defer c.mu.Unlock()
	var last *chain
	for _, l := range layers {
		at := link{l, last}
		next := c.chains[at]
		if next == nil {
			size := l.stream().Size
			next = &chain{link: at, base: size, root: span{hi: size}}
			if last != nil {
				next.base = min(last.base, size)
			}
			c.chains[at] = next
		}
		last = next
	}
	return last
}
