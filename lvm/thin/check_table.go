package thin

import (
	"errors"
	"math"
	"strings"

	"cbt/sparse"
)

func isFormatError(err error) bool {
	var fe *sparse.FormatError
	return errors.As(err, &fe)
}

// message returns the text of a FormatError without structure and place, which a Fault has itself.
func message(err error) string {
	var fe *sparse.FormatError
	if !errors.As(err, &fe) {
		return err.Error()
	}
	bare := *fe
	bare.Struct, bare.Off = "", -1
	return strings.TrimPrefix(bare.Error(), ": ")
}

// blockTable holds what the check knows about each metadata block, in 7 bytes and one bit for each.
type blockTable struct {
	refs    []uint16
	more    map[uint64]uint32 // counts from 65535 on
	entries []uint32          // number of entries in the leaves below a node
	info    []nodeInfo
	leaves  bitset // which blocks are leaves of mapping trees
}

// nodeInfo is the height of a node, the tree to which it belongs, and whether it is sound. It is 0
// for blocks that have not been met as a node.
type nodeInfo uint8

const damaged nodeInfo = 0x80 // something at or below it is wrong

func newNodeInfo(k leafKind, height int) nodeInfo { return nodeInfo(k+1)<<4 | nodeInfo(height-1) }

func (i nodeInfo) height() int    { return int(i&0xF) + 1 }
func (i nodeInfo) kind() leafKind { return leafKind(i>>4&7) - 1 }

func newBlockTable(blocks uint64) *blockTable {
	return &blockTable{
		refs: make([]uint16, blocks), more: map[uint64]uint32{}, entries: make([]uint32, blocks),
		info: make([]nodeInfo, blocks), leaves: make(bitset, (blocks+63)/64),
	}
}

// use counts one more reference to a block.
func (t *blockTable) use(block uint64) {
	if t.refs[block] < math.MaxUint16 {
		t.refs[block]++
		return
	}
	t.more[block]++
}

func (t *blockTable) count(block uint64) uint32 {
	return uint32(t.refs[block]) + t.more[block]
}

type bitset []uint64

func (s bitset) set(i uint64)      { s[i/64] |= 1 << (i % 64) }
func (s bitset) has(i uint64) bool { return s[i/64]>>(i%64)&1 != 0 }
