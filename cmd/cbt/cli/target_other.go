//go:build !linux

package cli

import "os"

const openNonblock = 0

func markIncomplete(*os.File) error { return nil }

func unmarkIncomplete(*os.File) error { return nil }

func isMarkedIncomplete(*os.File) bool { return false }

func wasClosed(*os.File) bool { return false }

// deviceState knows nothing: the record of a device fits only on Linux.
func deviceState(*os.File, fileStat) (id, writes string) { return "", "" }
