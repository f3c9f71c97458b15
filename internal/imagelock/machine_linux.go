package imagelock

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxCommandLine is how much of a command line is read.
const maxCommandLine = 1 << 20

// MachineOf finds the QEMU process that has f open. Processes of other users
// are only seen by root; ok is false if none is found. Where no machine has it but
// another program of QEMU has, it is that.
func MachineOf(f *os.File) (m Machine, ok bool) {
	fi, err := f.Stat()
	if err != nil {
		return m, false
	}
	id := identityOf(fi)
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return m, false
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		proc := filepath.Join("/proc", e.Name())
		args := commandLine(filepath.Join(proc, "cmdline"))
		if len(args) == 0 || !isQEMU(args[0]) || !hasOpen(proc, id) {
			continue
		}
		if tool := toolOf(args[0]); tool != "" {
			m, ok = Machine{Tool: tool}, true // a machine may have it too
			continue
		}
		return machineOf(args, func(path string) bool {
			path = strings.TrimPrefix(path, "file:")
			if !filepath.IsAbs(path) {
				path = filepath.Join(proc, "cwd", path)
			} else {
				path = filepath.Join(proc, "root", path) // it may be in a mount namespace of its own
			}
			fi, err := os.Stat(path)
			return err == nil && identityOf(fi) == id
		}), true
	}
	return m, ok
}

func commandLine(name string) (args []string) {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxCommandLine))
	if err != nil {
		return nil
	}
	for _, arg := range bytes.Split(bytes.TrimSuffix(text, []byte{0}), []byte{0}) {
		args = append(args, string(arg))
	}
	return args
}

// hasOpen says whether a process has the file.
func hasOpen(proc string, id identity) bool {
	dir := filepath.Join(proc, "fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if fi, err := os.Stat(filepath.Join(dir, fd.Name())); err == nil && identityOf(fi) == id {
			return true
		}
	}
	return false
}
