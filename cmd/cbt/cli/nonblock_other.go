//go:build !linux

package cli

const openNonblock = 0
