//go:build linux && cbtlive

package hostlvm_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"cbt/internal/hostlvm"
	"cbt/lvm/thin"
)

// helper is another process. It holds the pool's metadata snapshot, says so,
// and does what it is told by its name.
func helper(what string) int {
	h, err := hostlvm.Open(hostlvm.Options{LockDir: "/tmp/locks"})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	groups, _, err := h.Groups(context.Background())
	if err != nil {
		fmt.Println(err)
		return 1
	}
	r, _ := hostlvm.RefOf(groups[1].LV("pool"))
	p, err := h.OpenPool(r)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if what == "loop" {
		fmt.Println("begin")
		for err == nil {
			err = p.Snapshot(context.Background(), 0, func(context.Context, uint64) error { return nil })
		}
		fmt.Println(err)
		return 1
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	err = p.Snapshot(context.Background(), 0, func(_ context.Context, held uint64) error {
		fmt.Println("held", held)
		<-stop
		if what == "exit" {
			ok := hostlvm.ReleaseAll(5 * time.Second)
			fmt.Println("released", ok)
			os.Exit(9)
		}
		return nil
	})
	fmt.Println("done", err)
	return 0
}

// startHelper returns once the helper holds the snapshot; end signals it and
// returns what else it printed.
func startHelper(t *testing.T, what string) (pid int, end func(syscall.Signal) string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "LIVE_HELPER="+what)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	first, err := lines.ReadString('\n')
	if want := "held " + heldRoot(t) + "\n"; err != nil || first != want {
		t.Fatalf("helper: %q, %v, want %q", first, err, want)
	}
	return cmd.Process.Pid, func(sig syscall.Signal) string {
		if err := cmd.Process.Signal(sig); err != nil {
			t.Error(err)
		}
		var rest bytes.Buffer
		_, _ = rest.ReadFrom(lines)
		_ = cmd.Wait() // it was killed, or not, as the caller knows
		return strings.TrimSpace(rest.String())
	}
}

func TestSnapshot(t *testing.T) {
	h := host(t)
	p := pool(t, h)
	ctx := t.Context()
	ran := 0
	read := func(_ context.Context, held uint64) error {
		ran++
		if got := heldRoot(t); got != fmt.Sprint(held) {
			t.Errorf("held at %d, dmsetup says %s", held, got)
		}
		meta, err := p.Metadata()
		if err != nil {
			return err
		}
		m, err := thin.Open(meta, meta.Size(), thin.Options{Held: true})
		if err != nil {
			return err
		}
		if sb := m.Superblock(); sb.Block != held {
			t.Errorf("the metadata name %d, the kernel %d", sb.Block, held)
		}
		return nil
	}
	free := func(what string) {
		t.Helper()
		if got := heldRoot(t); got != "-" {
			t.Errorf("%s: %s is held", what, got)
		}
	}
	if err := p.Snapshot(ctx, 0, read); err != nil || ran != 1 {
		t.Errorf("%d runs, %v", ran, err)
	}
	free("done")

	broken := errors.New("broken")
	if err := p.Snapshot(ctx, 0, func(context.Context, uint64) error { return broken }); !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "vg/pool: ") {
		t.Error(err)
	}
	free("failed")

	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = p.Snapshot(ctx, 0, func(context.Context, uint64) error { panic("oops") })
	}()
	free("panicked")

	if err := p.Snapshot(cancelled(), 0, read); err == nil || !strings.Contains(err.Error(), "told to stop") || ran != 1 {
		t.Errorf("cancelled: %d runs, %v", ran, err)
	}
	free("cancelled")

	// Readers fail once their host's context is cancelled; the release does not.
	ctx2, cancel := context.WithCancelCause(t.Context())
	h2, err := hostlvm.Open(hostlvm.Options{Context: ctx2, LockDir: "/tmp/locks"})
	if err != nil {
		t.Fatal(err)
	}
	defer h2.Close()
	p2 := pool(t, h2)
	err = p2.Snapshot(ctx2, 0, func(context.Context, uint64) error {
		cancel(broken)
		m, err := p2.Metadata()
		if err != nil {
			return err
		}
		_, err = m.ReadAt(make([]byte, 1), 0)
		return err
	})
	if !errors.Is(err, broken) {
		t.Errorf("cancelled while it was read: %v", err)
	}
	free("cancelled while it was read")

	// One that somebody else holds is left alone.
	sh(t, "dmsetup message vg-pool-tpool 0 reserve_metadata_snap")
	was := heldRoot(t)
	var held *hostlvm.HeldError
	err = p.Snapshot(ctx, 0, read)
	if !errors.As(err, &held) || !errors.Is(err, hostlvm.ErrBusy) || fmt.Sprint(held.Root) != was || held.Left != "" || ran != 1 {
		t.Errorf("%d runs, %v", ran, err)
	}
	t.Log(err)
	if got := heldRoot(t); got != was {
		t.Errorf("somebody else's snapshot is at %s, was at %s", got, was)
	}
	sh(t, "dmsetup message vg-pool-tpool 0 release_metadata_snap")

	// Somebody releases ours.
	err = p.Snapshot(ctx, 0, func(context.Context, uint64) error {
		sh(t, "dmsetup message vg-pool-tpool 0 release_metadata_snap")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "somebody else released") {
		t.Error(err)
	}
	// And takes one of his own, which lies elsewhere.
	err = p.Snapshot(ctx, 0, func(context.Context, uint64) error {
		sh(t, `dmsetup message vg-pool-tpool 0 release_metadata_snap
			dd if=/dev/urandom of=/dev/vg/vm bs=64k count=2 seek=200 oflag=direct; sync
			dmsetup message vg-pool-tpool 0 reserve_metadata_snap`)
		return nil
	})
	t.Log(err)
	if err == nil || !strings.Contains(err.Error(), "took one at block") || heldRoot(t) == "-" {
		t.Errorf("held %s, %v", heldRoot(t), err)
	}
	sh(t, "dmsetup message vg-pool-tpool 0 release_metadata_snap")
}

func TestRunsWaitForEachOther(t *testing.T) {
	h := host(t)
	p := pool(t, h)
	never := func(context.Context, uint64) error { t.Error("both hold it"); return nil }
	pid, end := startHelper(t, "hold")
	err := p.Snapshot(t.Context(), 0, never)
	if !errors.Is(err, hostlvm.ErrBusy) || !strings.Contains(err.Error(), fmt.Sprintf("(process %d)", pid)) {
		t.Error(err)
	}
	t.Log(err)
	start := time.Now()
	if err := p.Snapshot(t.Context(), 300*time.Millisecond, never); !errors.Is(err, hostlvm.ErrBusy) || time.Since(start) < 300*time.Millisecond {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := p.Snapshot(ctx, time.Minute, never); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if _, err := h.ReleaseMetadataSnap(t.Context(), ref(t, h)); !errors.Is(err, hostlvm.ErrBusy) || heldRoot(t) == "-" {
		t.Errorf("released while another run holds it: %v", err)
	}
	var rest string
	go func() {
		time.Sleep(500 * time.Millisecond)
		rest = end(syscall.SIGTERM)
	}()
	ran := false
	if err := p.Snapshot(t.Context(), time.Minute, func(context.Context, uint64) error { ran = true; return nil }); err != nil || !ran {
		t.Error(err)
	}
	time.Sleep(100 * time.Millisecond)
	if rest != "done <nil>" {
		t.Errorf("helper: %q", rest)
	}
}

func TestKilledRun(t *testing.T) {
	h := host(t)
	p := pool(t, h)
	pid, end := startHelper(t, "hold")
	end(syscall.SIGKILL)
	root := heldRoot(t)
	if root == "-" {
		t.Fatal("nothing is held")
	}
	var held *hostlvm.HeldError
	err := p.Snapshot(t.Context(), time.Second, func(context.Context, uint64) error { t.Error("ran"); return nil })
	if !errors.As(err, &held) || fmt.Sprint(held.Root) != root ||
		!strings.Contains(held.Left, fmt.Sprintf("process %d", pid)) || !strings.HasSuffix(err.Error(), "left it behind; `cbt lvm release-metadata-snap vg/pool` releases it") {
		t.Error(err)
	}
	t.Log(err)
	sh(t, "dd if=/dev/urandom of=/dev/vg/vm bs=64k count=2 seek=300 oflag=direct; sync") // the pool works
	got, err := h.ReleaseMetadataSnap(t.Context(), ref(t, h))
	if err != nil || fmt.Sprint(got) != root || heldRoot(t) != "-" {
		t.Errorf("released %d, %v, now %s", got, err, heldRoot(t))
	}
	if _, err := h.ReleaseMetadataSnap(t.Context(), ref(t, h)); !errors.Is(err, hostlvm.ErrNotHeld) {
		t.Errorf("a second time: %v", err)
	}
	if err := p.Snapshot(t.Context(), 0, func(context.Context, uint64) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestKilledAtAnyInstant(t *testing.T) {
	h := host(t)
	p := pool(t, h)
	left := 0
	for range 12 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "LIVE_HELPER=loop")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "begin\n" {
			t.Fatalf("helper: %q, %v", line, err)
		}
		time.Sleep(time.Duration(rand.Intn(200)) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		root := heldRoot(t)
		err = p.Snapshot(t.Context(), time.Second, func(context.Context, uint64) error { return nil })
		if root == "-" {
			if err != nil {
				t.Errorf("nothing is held: %v", err)
			}
			continue
		}
		left++
		var held *hostlvm.HeldError
		if !errors.As(err, &held) || fmt.Sprint(held.Root) != root || !strings.Contains(held.Left, fmt.Sprintf("process %d,", cmd.Process.Pid)) {
			t.Errorf("held at %s: %v", root, err)
		}
		if _, err := h.ReleaseMetadataSnap(t.Context(), ref(t, h)); err != nil {
			t.Error(err)
		}
	}
	t.Logf("12 runs killed, %d of them left a metadata snapshot", left)
	if left == 0 {
		t.Error("no run was killed while it held the metadata snapshot")
	}
}

func TestReleaseAll(t *testing.T) {
	_, end := startHelper(t, "exit")
	if got := end(syscall.SIGTERM); got != "released true" || heldRoot(t) != "-" {
		t.Errorf("%q, held %s", got, heldRoot(t))
	}
	if !hostlvm.ReleaseAll(time.Second) {
		t.Error("nothing held is not released")
	}
}

func TestPoolIsRefused(t *testing.T) {
	h := host(t)
	good := ref(t, h)
	for what, c := range map[string]struct {
		change func(*hostlvm.PoolRef)
		want   error
		text   string
	}{
		"transaction": {func(r *hostlvm.PoolRef) { r.TransactionID += 2 }, nil, "transaction"},
		"unfinished":  {func(r *hostlvm.PoolRef) { r.TransactionID++; r.Messages = true }, nil, "has not finished"},
		"chunk":       {func(r *hostlvm.PoolRef) { r.ChunkSize *= 2 }, nil, "chunks of 128 sectors"},
		"metadata":    {func(r *hostlvm.PoolRef) { r.Metadata = r.Data }, hostlvm.ErrInactive, "tmeta"},
		"pool":        {func(r *hostlvm.PoolRef) { r.Pool = r.Data }, hostlvm.ErrBusy, "its t"},
		"elsewhere":   {func(r *hostlvm.PoolRef) { r.VG = r.Pool }, hostlvm.ErrInactive, ""},
	} {
		r := good
		c.change(&r)
		p, err := h.OpenPool(r)
		if p != nil || err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", what, err)
		}
		var tr *hostlvm.TransactionError
		if (what == "transaction" || what == "unfinished") != errors.As(err, &tr) {
			t.Errorf("%s: %v", what, err)
		}
		t.Log(err)
	}

	// A transaction that ends between opening and taking the snapshot.
	p := pool(t, h)
	sh(t, "lvcreate -q -y -s -n between vg/vm")
	var tr *hostlvm.TransactionError
	if err := p.Snapshot(t.Context(), 0, func(context.Context, uint64) error { t.Error("ran"); return nil }); !errors.As(err, &tr) || heldRoot(t) != "-" {
		t.Errorf("%v, held %s", err, heldRoot(t))
	}
	sh(t, "lvremove -q -y vg/between")

	sh(t, `lvcreate -q -y --type thin-pool -L 4M --poolmetadatasize 2M -c 64k -n small vg
		lvchange -q --errorwhenfull y vg/small
		lvcreate -q -y -V 64M --thin -n big vg/small 2>/dev/null
		dd if=/dev/zero of=/dev/vg/big bs=64k count=100 oflag=direct 2>/dev/null || true`)
	r, err := hostlvm.RefOf(group(t, h).LV("small"))
	if err != nil {
		t.Fatal(err)
	}
	// A pool that has no chunk left is read: its metadata snapshot is granted.
	if p, err = h.OpenPool(r); err != nil || len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "out of data space (64 of 64 chunks") {
		t.Fatalf("out of space: %v, %v", p, err)
	}
	ran := false
	if err := p.Snapshot(t.Context(), 0, func(context.Context, uint64) error { ran = true; return nil }); err != nil || !ran {
		t.Errorf("out of space: %v", err)
	}
	sh(t, "lvchange -q -an vg/big vg/small")
	if _, err := h.OpenPool(r); !errors.Is(err, hostlvm.ErrInactive) {
		t.Errorf("inactive: %v", err)
	}
	if _, err := h.ReleaseMetadataSnap(t.Context(), r); !errors.Is(err, hostlvm.ErrInactive) {
		t.Errorf("inactive: %v", err)
	}
	sh(t, "lvremove -q -y vg/small")
}
