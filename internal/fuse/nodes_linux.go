package fuse

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"cbt/internal/tree"
)

// node is a file or directory that the kernel knows.
type node struct {
	id    uint64 // the kernel's name for it, never used for another
	ino   uint64
	place place
	dir   *tree.Dir
	file  *tree.File
	known uint64 // how often the kernel looked it up
}

// place is where in the tree a node is.
type place struct {
	parent uint64 // its id
	name   string
}

const rootID = 1

// nodes are those that the kernel knows, and no others.
type nodes struct {
	mu      sync.RWMutex
	last    uint64
	byID    map[uint64]*node
	byPlace map[place]*node
}

func newNodes(root *tree.Dir) *nodes {
	n := &node{id: rootID, ino: rootID, dir: root, known: 1}
	return &nodes{last: rootID, byID: map[uint64]*node{rootID: n}, byPlace: map[place]*node{}}
}

func (t *nodes) get(id uint64) *node {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byID[id]
}

// look notes that the kernel looks up an entry of a directory.
func (t *nodes) look(parent *node, e *tree.Entry) *node {
	at := place{parent.id, e.Name}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byPlace[at]
	if n == nil {
		t.last++
		n = &node{id: t.last, ino: inode(parent.ino, e.Name), place: at, dir: e.Dir, file: e.File}
		t.byID[n.id], t.byPlace[at] = n, n
	}
	n.known++
	return n
}

// forget takes back n look-ups.
func (t *nodes) forget(id, n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.byID[id]
	if at == nil || id == rootID {
		return
	}
	if at.known -= min(n, at.known); at.known == 0 {
		delete(t.byID, id)
		delete(t.byPlace, at.place)
	}
}

// inode is the number that users see, which depends on the path alone: it is
// the same after the kernel forgot a file, and in the next mount.
func inode(parent uint64, name string) uint64 {
	b := binary.BigEndian.AppendUint64(nil, parent)
	sum := sha256.Sum256(append(b, name...))
	return binary.BigEndian.Uint64(sum[:])>>1 | 1<<62 // never that of the root, nor negative
}

// handles are what is open.
type handles struct {
	mu   sync.RWMutex
	last uint64
	all  map[uint64]any // *openFile or *openDir
}

func (h *handles) add(v any) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all == nil {
		h.all = map[uint64]any{}
	}
	h.last++
	h.all[h.last] = v
	return h.last
}

func (h *handles) get(id uint64) any {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.all[id]
}

func (h *handles) remove(id uint64) any {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.all[id]
	delete(h.all, id)
	return v
}
