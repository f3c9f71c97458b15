// Package imagelock finds out who uses an image, and keeps others off it.
//
// QEMU marks the images it has open with locks on single bytes of the file
// (block/file-posix.c: RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE): byte
// 100+p is locked by whoever uses permission p, byte 200+p by whoever does not
// let others use it. The locks are Linux's open file description locks, always
// shared ones, so that they tell but do not block: who opens an image locks
// his own bytes first and then looks for those that contradict them. Writer,
// HoldRead and HoldWrite do the same, and so QEMU, qemu-img and cbt see each
// other. The bytes themselves are not touched, and need not exist.
//
// On other systems than linux nothing is found and nothing kept off.
package imagelock

import "errors"

// ErrBusy says that somebody else uses the image.
var ErrBusy = errors.New("in use by another program")
