package lvm

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"cbt/lvm/thin"
	"cbt/sparse"
)

// Everything else that a kernel wrote: linear, striped, mirrors, thin, external origin, thick.
func TestMixed(t *testing.T) {
	g := assemble(t, disks(t, "mixed")...)
	for _, c := range contents(t, "mixed") {
		t.Run(c.lv, func(t *testing.T) {
			t.Parallel()
			checkContent(t, g, c, c.lv != "between" && c.lv != "mir" && c.lv != "snap2" && c.lv != "thick2")
			if !g.LV(c.lv).Visible() {
				t.Error("not visible")
			}
			if err := mustOpen(t, g, c.lv).Recheck(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	for name, want := range map[string]struct{ kind, origin, pool, external string }{
		"lin": {"linear", "", "", ""}, "stripes3": {"striped", "", "", ""}, "mir": {"mirror", "", "", ""}, "zero": {"zero", "", "", ""},
		"thin1": {"thin", "", "pool", ""}, "snap1": {"thin", "thin1", "pool", ""}, "overext": {"thin", "", "pool", "ext"},
		"thick1": {"snapshot", "org", "", ""}, "thinthick": {"snapshot", "odd", "", ""}, "pool": {"thin-pool", "", "", ""},
	} {
		lv := g.LV(name)
		if lv.Type() != want.kind || lv.Origin() != want.origin || lv.Pool() != want.pool || lv.ExternalOrigin() != want.external || lv.CreationTime == 0 {
			t.Errorf("%s: %s, origin %q, pool %q, external origin %q, made at %d", name, lv.Type(), lv.Origin(), lv.Pool(), lv.ExternalOrigin(), lv.CreationTime)
		}
	}
	var visible []string
	for _, lv := range g.LVs {
		if lv.Visible() {
			visible = append(visible, lv.Name)
		}
	}
	slices.Sort(visible)
	if got := strings.Join(visible, " "); got != "between ext lin mir mirlog odd org overext pool shrunk snap1 snap2 str-ip.ed_2 stripes3 thick1 thick2 thin1 thinthick zero" {
		t.Errorf("visible: %s", got)
	}
	if _, err := g.Open("pool", OpenOptions{}); asRefused(err) == nil {
		t.Error(err)
	}
	// The volume with the snapshot segment is another name of the snapshot.
	if a, b := mustOpen(t, g, "snapshot0"), mustOpen(t, g, "thick1"); a != b {
		t.Error("snapshot0 is not thick1")
	}
	if m, err := g.Pool("pool", OpenOptions{}); err != nil || m != mustOpen(t, g, "thin1").Pool() || m != mustOpen(t, g, "overext").Pool() {
		t.Errorf("pool: %v, %v", m, err)
	}
	if _, err := g.Pool("lin", OpenOptions{}); !errors.Is(err, ErrNoPool) {
		t.Error(err)
	}
}

// Outside the extents that Changed names, both sides are the same; inside, something differs.
func TestChanged(t *testing.T) {
	g := assemble(t, disks(t, "mixed")...)
	for _, c := range []struct {
		old, new string
		method   Method
		most     int64 // bytes
	}{
		{"snap1", "snap2", MethodThin, 4 * 192 << 10},
		{"snap2", "snap1", MethodThin, 4 * 192 << 10},
		{"snap2", "thin1", MethodThin, 5 * 192 << 10},
		{"thin1", "thin1", MethodThin, 0},
		{"snap1", "overext", MethodThin, 2 << 20},
		{"shrunk", "odd", MethodThin, 1 << 20},
		{"odd", "snap1", MethodThin, 4 << 20},
		{"thick1", "org", MethodCOW, 7 * 4096 * 2},
		{"org", "thick1", MethodCOW, 7 * 4096 * 2},
		{"thick1", "thick2", MethodCOW, 12 * 32 << 10},
		{"thinthick", "odd", MethodCOW, 16 << 10},
	} {
		old, new := mustOpen(t, g, c.old), mustOpen(t, g, c.new)
		size := max(old.Size(), new.Size())
		if method := MethodOf(old, new); method != c.method {
			t.Errorf("%s, %s: %q", c.old, c.new, method)
		}
		a, b := append(mustRead(t, old), make([]byte, size-old.Size())...), append(mustRead(t, new), make([]byte, size-new.Size())...)
		extents, err := sparse.Collect(Changed(old, new, 0, size))
		if err != nil {
			t.Error(err)
		}
		var total int64
		for _, e := range extents {
			copy(a[e.Off:], b[e.Off:e.End()])
			total += e.Len
		}
		// What lies past new's end is not named.
		if i := firstDifference(a[:new.Size()], b[:new.Size()]); i >= 0 {
			t.Errorf("%s, %s: byte %d differs and is not named in %v", c.old, c.new, i, extents)
		}
		if total > c.most || c.most > 0 && total == 0 {
			t.Errorf("%s, %s: %d bytes: %v", c.old, c.new, total, extents)
		}
	}
	for _, c := range [][2]string{{"lin", "between"}, {"lin", "thin1"}, {"org", "odd"}, {"thick1", "odd"}, {"thick1", "thinthick"}, {"lin", "lin"}} {
		old, new := mustOpen(t, g, c[0]), mustOpen(t, g, c[1])
		if _, err := sparse.Collect(Changed(old, new, 0, 1<<20)); MethodOf(old, new) != "" || !errors.Is(err, sparse.ErrUnrelated) {
			t.Errorf("%s, %s: %q, %v", c[0], c[1], MethodOf(old, new), err)
		}
	}
	// Two readings of a group are unrelated.
	other := assemble(t, disks(t, "mixed")...)
	if _, err := sparse.Collect(Changed(mustOpen(t, g, "snap1"), mustOpen(t, other, "snap2"), 0, 1<<20)); !errors.Is(err, sparse.ErrUnrelated) {
		t.Error(err)
	}
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// A missing disk: volumes that lie on it are refused with its name, the others are read.
func TestMissing(t *testing.T) {
	all := disks(t, "mixed")
	g := assemble(t, all[0], all[1])
	if g.PVs[2].Missing != "not among the disks" || len(g.Warnings) != 1 || !strings.Contains(g.Warnings[0], g.PVs[2].ID) {
		t.Errorf("%+v, %q", g.PVs[2], g.Warnings)
	}
	read := 0
	for _, c := range contents(t, "mixed") {
		v, err := g.Open(c.lv, OpenOptions{})
		var missing *MissingError
		switch {
		case err == nil:
			read++
			if sum(mustRead(t, v)) != c.sum {
				t.Errorf("%s: other content", c.lv)
			}
		case !errors.As(err, &missing) || !strings.Contains(err.Error(), g.PVs[2].ID) || !strings.Contains(err.Error(), "/dev/vdc"):
			t.Errorf("%s: %v", c.lv, err)
		case c.lv != "lin" && c.lv != "stripes3":
			t.Errorf("%s: %v", c.lv, err)
		}
	}
	if read != 16 {
		t.Errorf("%d volumes read", read)
	}
	// Each disk alone knows the group.
	for _, d := range all {
		if g := assemble(t, d); g.Name != "mixed" || len(g.Warnings) != 2 {
			t.Errorf("%s: %q", d.Name, g.Warnings)
		}
	}
}

// Volumes that are read through devices.
func TestDevice(t *testing.T) {
	plain := assemble(t, disks(t, "mixed")...)
	g := assemble(t, disks(t, "mixed")...)
	asked := map[string]int{}
	opt := OpenOptions{Device: func(lv *LV, layer Layer) (io.ReaderAt, int64, error) {
		asked[lv.Name+":"+string(layer)]++
		switch lv.Name + ":" + string(layer) {
		case "pool_tmeta:", "pool_tdata:":
			v, err := plain.Open(lv.Name, OpenOptions{})
			return v, v.Size() + 4096, err
		case "thick1:cow":
			r := resolver{g: plain}
			v, err := r.raw(plain.LV("thick1"))
			return v, v.Size(), err
		case "thick1:", "snap1:":
			return io.NewSectionReader(fill('x'), 0, 1<<40), lv.VolumeSize(), nil
		case "lin:":
			return fill('l'), lv.Size - 1, nil
		case "stripes3:":
			return nil, 0, io.ErrClosedPipe
		}
		return nil, 0, nil
	}}
	for _, c := range contents(t, "mixed") {
		v, err := g.Open(c.lv, opt)
		switch c.lv {
		case "lin":
			if err == nil || !strings.Contains(err.Error(), "has 3145727 bytes, not the 3145728") {
				t.Error(err)
			}
			continue
		case "stripes3":
			if err != io.ErrClosedPipe {
				t.Error(err)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		b := mustRead(t, v)
		if c.lv == "thick1" || c.lv == "snap1" {
			if b[0] != 'x' || b[len(b)-1] != 'x' {
				t.Errorf("%s was not read through its device", c.lv)
			}
			was, _ := sparse.Collect(mustOpen(t, plain, c.lv).Extents(0, c.size))
			if is, err := sparse.Collect(v.Extents(0, c.size)); err != nil || !slices.Equal(is, was) {
				t.Errorf("%s: extents %v, want %v", c.lv, is, was)
			}
		} else if sum(b) != c.sum {
			t.Errorf("%s: other content", c.lv)
		}
		if err := v.Recheck(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if asked["pool_tmeta:"] != 1 || asked["thick1:cow"] != 1 || asked["pool_tdata_rimage_0:"] != 0 {
		t.Error(asked)
	}
	if _, err := sparse.Collect(Changed(mustOpenWith(t, g, "snap1", opt), mustOpenWith(t, g, "snap2", opt), 0, 4<<20)); err != nil {
		t.Error(err)
	}
	if _, err := g.Pool("pool", OpenOptions{}); err != nil {
		t.Error(err)
	}
	// No metadata snapshot is held.
	if _, err := assemble(t, disks(t, "mixed")...).Open("snap1", OpenOptions{Held: true}); !errors.Is(err, thin.ErrNotHeld) {
		t.Error(err)
	}
}

func mustOpenWith(t *testing.T, g *Group, name string, opt OpenOptions) *Volume {
	t.Helper()
	v, err := g.Open(name, opt)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// fill reads as one byte everywhere.
type fill byte

func (f fill) ReadAt(p []byte, _ int64) (int, error) {
	for i := range p {
		p[i] = byte(f)
	}
	return len(p), nil
}
