//go:build !linux

package cli

import "os"

const openNonblock = 0

func markIncomplete(*os.File) error { return nil }

func unmarkIncomplete(*os.File) error { return nil }

func isMarkedIncomplete(*os.File) bool { return false }

func wasClosed(*os.File) bool { return false }
