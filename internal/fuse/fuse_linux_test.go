package fuse

import (
	"context"
	"errors"
	"testing"
	"time"

	"cbt/internal/tree"
)

func TestMountedAt(t *testing.T) {
	for in, want := range map[string]string{
		`/mnt`: "/mnt", `/with\040space\134\011`: "/with space\\\t", `/cut\04`: `/cut\04`, `\zzz`: `\zzz`,
	} {
		if got := unescapeMount(in); got != want {
			t.Errorf("unescapeMount(%q) = %q, want %q", in, got, want)
		}
	}
	for _, dir := range []string{t.TempDir(), "/proc", "/nonexistent/dir"} {
		if err := Unmount(context.Background(), dir, false); !errors.Is(err, ErrNotMounted) && dir != "/nonexistent/dir" || err == nil {
			t.Errorf("Unmount(%s): %v", dir, err)
		}
	}
}

// What the kernel knows is kept, and no more.
func TestNodes(t *testing.T) {
	file := &tree.File{}
	n := newNodes(tree.Static(time.Time{}))
	root := n.get(rootID)
	a := n.look(root, &tree.Entry{Name: "a", File: file})
	if again := n.look(root, &tree.Entry{Name: "a", File: file}); again != a {
		t.Error("one file, two nodes")
	}
	b := n.look(root, &tree.Entry{Name: "b", File: file})
	if a.id == b.id || a.ino == b.ino || a.ino != inode(root.ino, "a") {
		t.Errorf("%+v %+v", a, b)
	}
	n.forget(a.id, 1)
	if n.get(a.id) != a {
		t.Error("forgotten too early")
	}
	n.forget(a.id, 1)
	n.forget(a.id, 1)
	if n.get(a.id) != nil || len(n.byPlace) != 1 {
		t.Error("not forgotten")
	}
	if next := n.look(root, &tree.Entry{Name: "a", File: file}); next.id == a.id || next.ino != a.ino {
		t.Errorf("%+v after %+v", next, a)
	}
	n.forget(rootID, 1000)
	if n.get(rootID) != root {
		t.Error("the root is forgotten")
	}
}
