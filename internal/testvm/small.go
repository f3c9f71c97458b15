package testvm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"cbt/internal/testtool"
)

// Small gives a kernel and an initramfs with nothing but busybox, as /bin/sh and
// by its other names in /bin, these modules, which modprobe finds, and /init.
func Small(t testing.TB, init string, modules ...string) (kernelFile, initramfs string) {
	t.Helper()
	Need(t)
	kernelDir, err := kernel()
	if err != nil {
		t.Fatal(err)
	}
	kernels, _ := filepath.Glob(filepath.Join(kernelDir, "boot", "vmlinuz-*"))
	if len(kernels) != 1 {
		t.Fatalf("%s: %d kernels, want 1", kernelDir, len(kernels))
	}
	initramfs = filepath.Join(t.TempDir(), "initramfs")
	if err := writeSmall(initramfs, kernelDir, init, modules); err != nil {
		t.Fatal(err)
	}
	return kernels[0], initramfs
}

func writeSmall(name, kernelDir, init string, modules []string) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	a := newArchive(f)
	for _, dir := range []string{"dev", "proc", "sys", "tmp", "mnt"} {
		a.dir(dir)
	}
	busybox, ok := testtool.Find("busybox")
	if !ok {
		return missing("busybox")
	}
	a.hostFile("bin/busybox", busybox)
	a.link("bin/sh", "busybox")
	a.file("init", 0o755, []byte("#!/bin/busybox sh\n/bin/busybox --install -s /bin\n"+init))
	if err := addModules(a, kernelDir, modules); err != nil {
		return err
	}
	return a.close()
}
