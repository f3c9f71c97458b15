// Package tree is a tree of directories and files that hold images, without a
// file system in it: names, sizes and times, directories that are made when
// somebody looks at them, and what has to be open to read a file, kept open for
// as long as somebody does. Package fuse shows such a tree.
package tree

import (
	"context"
	"time"

	"cbt/internal/lru"
	"cbt/sparse"
)

// Dir is a directory.
type Dir struct {
	Time time.Time
	// List makes the entries, whose names have to be distinct file names (see
	// Names). It is called when the directory is looked at, and again once its
	// result was dropped, and has to give the same names then.
	List func(ctx context.Context) ([]Entry, error)
}

// Entry is a name in a directory. Either Dir or File is set.
type Entry struct {
	Name string
	Dir  *Dir
	File *File
}

// File is a file.
type File struct {
	Time   time.Time
	Size   int64 // bytes
	Stored int64 // bytes that it takes, about
	// Writable says that handles have a Writer.
	Writable bool
	// Open opens the file. It may be called by several goroutines at once.
	Open func(ctx context.Context) (*Handle, error)
}

// Handle is an open file. It is safe for concurrent use.
type Handle struct {
	sparse.View
	Writer Writer // nil: it cannot be written to
	// Release, if not nil, is called once, when nobody reads any more.
	Release func()
}

// Close ends the use of h.
func (h *Handle) Close() {
	if h.Release != nil {
		h.Release()
	}
}

// Writer is what a file that can be written to has besides a View. It is safe
// for concurrent use, and cannot change the file's size.
type Writer interface {
	WriteAt(p []byte, off int64) (int, error)
	// Zero makes n bytes at off read as zeros.
	Zero(off, n int64) error
	Sync() error
}

// Static is a directory of entries that are known.
func Static(t time.Time, entries ...Entry) *Dir {
	return &Dir{Time: t, List: func(context.Context) ([]Entry, error) { return entries, nil }}
}

// Listing is what a directory holds.
type Listing struct {
	Entries []Entry
	byName  map[string]int
}

// Find is the entry with a name, nil if there is none.
func (l *Listing) Find(name string) *Entry {
	if i, ok := l.byName[name]; ok {
		return &l.Entries[i]
	}
	return nil
}

// Tree is a root and the directories that were looked at last. It is safe for
// concurrent use.
type Tree struct {
	Root  *Dir
	lists *lru.Cache[*Dir, *Listing]
}

// A listing may take so much, as those with a partition table's 255 entries do,
// and all that are kept so much: a walk over any number of points does not grow.
const (
	listingCost  = 32 << 10
	listingCache = 32 << 20
)

// New returns the tree below root.
func New(root *Dir) *Tree {
	return &Tree{Root: root, lists: lru.New[*Dir, *Listing](listingCache)}
}

// List lists d, a directory of the tree.
func (t *Tree) List(ctx context.Context, d *Dir) (*Listing, error) {
	// What it costs shows only when it is there. Directories of many entries
	// are few.
	return t.lists.Get(d, listingCost, func() (*Listing, error) {
		entries, err := d.List(ctx)
		if err != nil {
			return nil, err
		}
		l := &Listing{Entries: entries, byName: make(map[string]int, len(entries))}
		for i, e := range entries {
			l.byName[e.Name] = i
		}
		return l, nil
	})
}
