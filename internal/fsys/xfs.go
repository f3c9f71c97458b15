package fsys

import (
	"encoding/binary"
	"fmt"

	"cbt/internal/binfmt"
)

var be = binary.BigEndian

// The superblock (fs/xfs/libxfs/xfs_format.h: struct xfs_dsb).
const (
	xfsSize        = 512
	xfsMagic       = "XFSB"
	xfsBlockSizeAt = 4   // u32, bytes
	xfsLogStartAt  = 48  // u64, a block of the file system; 0: the log is elsewhere
	xfsAGBlocksAt  = 84  // u32
	xfsLogBlocksAt = 96  // u32
	xfsAGShiftAt   = 124 // u8: an allocation group's blocks, rounded up to a power of two
)

// lookXFS goes by what the log has from its tail to its head. An unmount leaves
// one record that says so, a freeze at most a few that write the superblock
// once more, so that the next mount looks at the log at all.
func lookXFS(v volume) (s System, err error) {
	b, err := v.read(0, xfsSize)
	if b == nil || string(b[:4]) != xfsMagic {
		return s, err
	}
	s.Kind, s.State = "xfs", Unknown
	block, start := uint64(be.Uint32(b[xfsBlockSizeAt:])), be.Uint64(b[xfsLogStartAt:])
	blocks, shift := uint64(be.Uint32(b[xfsLogBlocksAt:])), b[xfsAGShiftAt]
	switch {
	case block < 512 || block > 64<<10 || block&(block-1) != 0 || shift == 0 || shift > 32:
		s.Why = "its superblock is damaged"
		return s, nil
	case start == 0:
		s.Why = "its log is on another device"
		return s, nil
	}
	group := start >> shift
	off := (group*uint64(be.Uint32(b[xfsAGBlocksAt:])) + start&(1<<shift-1)) * block
	if group > 1<<20 || blocks*block < minLog || !binfmt.Inside(off, blocks*block, v.size) {
		s.Why = "its log is not inside of it"
		return s, nil
	}
	l := xfsLog{v, off, blocks * block / logBlock}
	s.State, s.Why, err = l.state()
	return s, err
}

func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
