//go:build linux && cbtlive

package hostlvm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"cbt/internal/hostlvm"
	"cbt/lvm"
	"cbt/lvm/thin"
	"cbt/sparse"
)

// live is what a diff of two snapshots does.
func live(ctx context.Context, h *hostlvm.Host, oldName, newName string, between func()) (set []sparse.Extent, content []byte, err error) {
	groups, _, err := h.Groups(ctx)
	if err != nil {
		return nil, nil, err
	}
	g, err := lvm.FindGroup(groups, "vg")
	if err != nil {
		return nil, nil, err
	}
	oldLV, newLV := g.LV(oldName), g.LV(newName)
	for _, lv := range []*lvm.LV{oldLV, newLV} {
		if err := h.Frozen(g.ID, lv.ID); err != nil {
			return nil, nil, err
		}
	}
	r, err := hostlvm.RefOf(newLV)
	if err != nil {
		return nil, nil, err
	}
	p, err := h.OpenPool(r)
	if err != nil {
		return nil, nil, err
	}
	var new *lvm.Volume
	var prints []thin.Fingerprint
	err = p.Snapshot(ctx, time.Minute, func(context.Context, uint64) error {
		opt := lvm.OpenOptions{Device: h.Device, Held: true}
		old, err := g.Open(oldName, opt)
		if err != nil {
			return err
		}
		if new, err = g.Open(newName, opt); err != nil {
			return err
		}
		for _, v := range []*lvm.Volume{old, new} {
			f, err := v.Thin().Fingerprint()
			if err != nil {
				return err
			}
			prints = append(prints, f)
		}
		for e, err := range lvm.Changed(old, new, 0, max(old.Size(), new.Size())) {
			if err != nil {
				return err
			}
			set = append(set, e)
		}
		return old.Recheck(ctx)
	})
	if err != nil {
		return nil, nil, err
	}
	if between != nil {
		between()
	}
	content = make([]byte, new.Size())
	if _, err := new.ReadAt(content, 0); err != nil {
		return nil, nil, err
	}
	if err := p.Verify(ctx, time.Minute, prints...); err != nil {
		return nil, nil, err
	}
	for _, lv := range []*lvm.LV{oldLV, newLV} {
		if err := h.Frozen(g.ID, lv.ID); err != nil {
			return nil, nil, err
		}
	}
	return set, content, nil
}

func TestLiveDiff(t *testing.T) {
	h := host(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	writes := exec.CommandContext(ctx, "/bin/sh", "-c", "while :; do dd if=/dev/urandom of=/dev/vg/vm bs=64k count=40 seek=$((RANDOM%900)) oflag=direct 2>/dev/null; done")
	writes.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := writes.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(-writes.Process.Pid, syscall.SIGKILL); _ = writes.Wait() }()
	set, got, err := live(t.Context(), h, "s1", "s2", func() { time.Sleep(time.Second) })
	if err != nil {
		t.Fatal(err)
	}
	if heldRoot(t) != "-" {
		t.Error("still held")
	}
	// Chunks 37-39 and the one of the 4 KiB block 6001, and the discarded two.
	want := []sparse.Extent{
		{Off: 1 << 20, Len: 128 << 10, Kind: sparse.Hole},
		{Off: 37 << 16, Len: 3 << 16, Kind: sparse.Data},
		{Off: 375 << 16, Len: 1 << 16, Kind: sparse.Data},
	}
	if fmt.Sprint(set) != fmt.Sprint(want) {
		t.Errorf("changed %v, want %v", set, want)
	}
	sh(t, "lvchange -q -ay -K vg/s2")
	is, err := os.ReadFile("/dev/vg/s2")
	sh(t, "lvchange -q -an vg/s2")
	if err != nil || !bytes.Equal(is, got) {
		t.Errorf("content equal %v, %v", bytes.Equal(is, got), err)
	}

	// Other snapshots come and go meanwhile.
	if _, _, err := live(t.Context(), h, "s1", "s2", func() {
		sh(t, "lvcreate -q -y -s -n other vg/vm; lvremove -q -y vg/other")
	}); err != nil {
		t.Errorf("with other snapshots taken: %v", err)
	}
	// The two do not.
	_, _, err = live(t.Context(), h, "s1", "s2", func() {
		sh(t, "lvchange -q -ay -K vg/s2; dd if=/dev/urandom of=/dev/vg/s2 bs=4k count=1 oflag=direct; lvchange -q -an vg/s2")
	})
	t.Log(err)
	if !errors.Is(err, sparse.ErrChanged) {
		t.Errorf("written to meanwhile: %v", err)
	}
	_, _, err = live(t.Context(), h, "s1", "s2", func() { sh(t, "lvremove -q -y vg/s2") })
	t.Log(err)
	if !errors.Is(err, sparse.ErrChanged) {
		t.Errorf("removed meanwhile: %v", err)
	}
	if heldRoot(t) != "-" {
		t.Error("still held")
	}
}
