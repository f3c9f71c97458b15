//go:build !linux

package cli

import "syscall"

func backgroundAttr() *syscall.SysProcAttr { return nil }

func detachStderr() error { return nil }
