package fsys

import (
	"bytes"
	"errors"
	"sort"
)

// The log of XFS is a ring of blocks of 512 bytes (fs/xfs/libxfs/xfs_log_format.h).
// A record is a header of one or more blocks and its content. The first word of
// every block is the number of the round that wrote it (its cycle), but for the
// first of a header, which has it in the second word; the words of the content
// that stood there are in the header.
const (
	logBlock   = 512
	recMagic   = 0xfeedbabe
	recCycleAt = 4   // u32
	recVersAt  = 8   // u32
	recLenAt   = 12  // u32, bytes of content
	recTailAt  = 24  // u64, cycle and block where what is not written back begins
	recOpsAt   = 40  // u32
	recWordsAt = 44  // u32 [64]
	recFmtAt   = 300 // u32
	recSizeAt  = 320 // u32, the size of the buffer that it was written from

	perHeader   = 32 << 10  // bytes of content whose first words a header block has
	maxRecord   = 256 << 10 // bytes of content
	maxPending  = 64 << 10  // what a freeze leaves is far smaller
	minLog      = 64 * logBlock
	formatLinux = 1 // little-endian; what else there was is IRIX

	opSize    = 12
	opLenAt   = 4 // u32
	opFlagsAt = 9
	opUnmount = 0x20
	opSplit   = 0x04 | 0x08 // goes on in another record, or came from one

	transMagic  = 0x5452414e
	itemBuffer  = 0x123c
	itemSizeAt  = 2 // u16, regions with this one
	itemBlockAt = 8 // u64, in sectors of 512
)

type xfsLog struct {
	v      volume
	off, n uint64 // n blocks of 512
}

var errNotSettled = errors.New("not settled")

func (l xfsLog) block(i uint64) ([]byte, error) {
	return l.v.read(l.off+i%l.n*logBlock, logBlock)
}

// read reads n blocks, around the end of the ring.
func (l xfsLog) read(i, n uint64) ([]byte, error) {
	i %= l.n
	first := min(n, l.n-i)
	b, err := l.v.read(l.off+i*logBlock, first*logBlock)
	if err != nil || first == n {
		return b, err
	}
	rest, err := l.v.read(l.off, (n-first)*logBlock)
	return append(b, rest...), err
}

func cycle(b []byte) uint32 {
	if w := be.Uint32(b); w != recMagic {
		return w
	}
	return be.Uint32(b[recCycleAt:])
}

// state finds the head of the log, the last record before it, and looks at all
// from there back to the tail that this names.
func (l xfsLog) state() (State, string, error) {
	head, err := l.head()
	if err != nil {
		return Unknown, "", err
	}
	// The last record before the head.
	n := min(uint64(maxRecord/logBlock+maxRecord/perHeader+1), l.n)
	b, err := l.read(head+l.n-n, n)
	if err != nil {
		return Unknown, "", err
	}
	at := -1
	for i := len(b) - logBlock; i >= 0 && at < 0; i -= logBlock {
		if be.Uint32(b[i:]) == recMagic {
			at = i
		}
	}
	if at < 0 {
		return Unknown, "its log has no record where it ends", nil
	}
	if be.Uint32(b[at+recFmtAt:]) != formatLinux {
		return Unknown, "its log is of another system", nil
	}
	tail := be.Uint64(b[at+recTailAt:]) & 0xffffffff
	length := (head + l.n - tail%l.n) % l.n
	if length == 0 || tail >= l.n {
		return Unknown, "its log has no tail", nil
	}
	waiting := "its log has " + countOf(int((length*logBlock+1023)>>10), "KiB") + " that is not written back"
	if length*logBlock > maxPending {
		return Pending, waiting, nil
	}
	if b, err = l.read(tail, length); err != nil {
		return Unknown, "", err
	}
	unmounted, err := settled(b)
	switch {
	case err != nil:
		return Pending, waiting, nil
	case unmounted:
		return Settled, "its log says that it was unmounted", nil
	}
	return Settled, "its log has nothing but the superblock, as a freeze leaves it", nil
}

// head is the first block of the older round, or the first that was never
// written: the next record goes there.
func (l xfsLog) head() (uint64, error) {
	first, err := l.block(0)
	if err != nil {
		return 0, err
	}
	now := cycle(first)
	older := func(i int) bool {
		b, e := l.block(uint64(i))
		if e != nil {
			err = e
			return true
		}
		return cycle(b) != now
	}
	return uint64(sort.Search(int(l.n), older)) % l.n, err
}

// settled looks at whole records that follow one another: is there nothing in
// them but an unmount, or the superblock?
func settled(b []byte) (unmounted bool, err error) {
	for len(b) > 0 {
		if len(b) < logBlock || be.Uint32(b) != recMagic {
			return false, errNotSettled
		}
		size, headers := uint64(be.Uint32(b[recLenAt:])), uint64(1)
		if buffer := be.Uint32(b[recSizeAt:]); be.Uint32(b[recVersAt:])&2 != 0 && buffer > perHeader {
			headers = (uint64(buffer) + perHeader - 1) / perHeader
		}
		content := (size + logBlock - 1) / logBlock
		if size > maxRecord || headers > maxRecord/perHeader || (headers+content)*logBlock > uint64(len(b)) || content > headers*perHeader/logBlock {
			return false, errNotSettled
		}
		data := bytes.Clone(b[headers*logBlock:][:content*logBlock])
		for i := range content { // the words that the cycle took the place of
			words := b[recWordsAt:]
			if h := i / (perHeader / logBlock); h > 0 {
				words = b[h*logBlock+4:]
			}
			copy(data[i*logBlock:][:4], words[i%(perHeader/logBlock)*4:])
		}
		if unmounted, err = onlySuperblock(data[:size], be.Uint32(b[recOpsAt:])); err != nil {
			return false, err
		}
		b = b[(headers+content)*logBlock:]
	}
	return unmounted, nil
}

// onlySuperblock walks through the operations of a record.
func onlySuperblock(b []byte, ops uint32) (unmounted bool, err error) {
	regions := 0 // that are left of an item
	for ; ops > 0; ops-- {
		if len(b) < opSize {
			return false, errNotSettled
		}
		n, flags := uint64(be.Uint32(b[opLenAt:])), b[opFlagsAt]
		b = b[opSize:]
		if n > uint64(len(b)) || flags&opSplit != 0 {
			return false, errNotSettled
		}
		p := b[:n]
		b = b[n:]
		switch {
		case flags&opUnmount != 0:
			unmounted = true
		case regions > 0:
			regions--
		case n == 0, n >= 4 && le.Uint32(p) == transMagic: // begins or ends a transaction
		case n >= itemBlockAt+8 && le.Uint16(p) == itemBuffer && le.Uint64(p[itemBlockAt:]) == 0:
			regions = int(le.Uint16(p[itemSizeAt:])) - 1
		default:
			return false, errNotSettled
		}
	}
	return unmounted, nil
}
