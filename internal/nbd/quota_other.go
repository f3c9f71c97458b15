//go:build !unix

package nbd

import "syscall"

var errQuota error = syscall.ENOSPC
