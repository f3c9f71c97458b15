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
	buffers  chan []byte // of maxPayload bytes, to be used again
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

// buffer is room for a payload of n bytes.
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

// room is what a payload of n bytes takes. Large ones take as much as any, so
// that the next can have their place: a garbage collector that comes late
// would let a megabyte for each read pile up.
func (c *decoded) room(n int) int64 {
	if n > maxPayload/2 {
		return maxPayload
	}
	return int64(n)
}

// Cache is what stacks share that were made with it: at most 36 MiB of decoded
// parts, and of maps that say which byte comes from where. Of a delta that is
// in several stacks nothing is held twice. It is safe for concurrent use.
type Cache struct {
	decoded *decoded
	regions *lru.Cache[*span, *region]
	limits  limits
	build   sync.Mutex    // of regions: one at a time bounds the memory
	ahead   chan struct{} // as many elements as goroutines read ahead

	mu     sync.Mutex
	deltas map[*Delta]*Delta // with this cache in place of their own
	chains map[link]*chain
}

// chain is the layers up to one. Chains that begin alike share what is alike.
type chain struct {
	link
	base int64 // bytes of the full one that nothing later has cut off
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

// layers gives the layers c for their cache.
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

// chain gives the chain of layers that were checked and are c's.
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
