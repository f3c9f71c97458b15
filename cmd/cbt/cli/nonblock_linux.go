package cli

import "golang.org/x/sys/unix"

const openNonblock = unix.O_NONBLOCK
