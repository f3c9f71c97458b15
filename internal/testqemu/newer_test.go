package testqemu_test

import (
	"strings"
	"testing"

	"cbt/internal/testqemu"
)

func TestNewer(t *testing.T) {
	m := testqemu.StartProgram(t, testqemu.Newer(t), "-S", "-m", "1")
	version := m.Do("query-version", nil)["qemu"].(map[string]any)
	if major := version["major"].(float64); major < 10 {
		t.Errorf("QEMU %v", version)
	}
}

func TestLibvirt(t *testing.T) {
	l := testqemu.NewLibvirt(t)
	if out := l.Virsh("list --all", "version"); !strings.Contains(out, "Running hypervisor: QEMU 1") {
		t.Errorf("%q", out)
	}
}
