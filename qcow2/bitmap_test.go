package qcow2

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"cbt/internal/sample"
	"cbt/internal/testtool"
	"cbt/sparse"
)

// TestBitmapsOfQEMU has qemu-io write while a persistent bitmap records. It compares
// ChangedByBitmap with what was written and with the bitmap as qemu-nbd shows it.
func TestBitmapsOfQEMU(t *testing.T) {
	testtool.Need(t, "qemu-img")
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 5))
			path := filepath.Join(t.TempDir(), "i.qcow2")
			size := (1 + rnd.Int64N(40_000)) * 512
			granularity := pick[int64](rnd, 512, 4096, 65536, 1<<20)
			cluster := pick(rnd, 512, 4096, 65536, 2<<20)
			testtool.Run(t, "qemu-img", "create", "-f", "qcow2", "-o", fmt.Sprintf("cluster_size=%d", cluster), path, fmt.Sprint(size))
			write := func(n int) (dirty []int64) {
				var cmds bytes.Buffer
				for range n {
					off := rnd.Int64N(size/512) * 512
					length := min((1+rnd.Int64N(300))*512, size-off)
					fmt.Fprintf(&cmds, "%s %d %d\n", pick(rnd, "write -P 7", "write -z", "write -z -u", "discard"), off, length)
					for g := off / granularity; g*granularity < off+length; g++ {
						dirty = append(dirty, g)
					}
				}
				cmd := exec.Command(testtool.Need(t, "qemu-io"), "-f", "qcow2", "-d", "unmap", path)
				cmd.Stdin = &cmds
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				return dirty
			}
			write(5)
			testtool.Run(t, "qemu-img", "bitmap", "--add", "-g", fmt.Sprint(granularity), path, "since")
			dirty := write(rnd.IntN(6))
			testtool.Run(t, "qemu-img", "bitmap", "--disable", path, "since")
			write(3)
			testtool.Run(t, "qemu-img", "bitmap", "--add", "--disable", "-g", "512", path, "empty")

			img := mustOpen(t, path)
			list, err := img.Bitmaps()
			if err != nil || len(list) != 2 || list[0].Name != "since" || int64(1)<<list[0].Granularity != granularity || list[0].Flags != 0 {
				t.Fatalf("%+v, %v", list, err)
			}
			v := img.Active()
			checkBitmap(t, v, "since", dirty, granularity)
			checkBitmap(t, v, "empty", nil, 512)
			checkBitmapNBD(t, path, v, "since")
		})
	}
}

// checkBitmap wants exactly the dirty granules, as extents of v.
func checkBitmap(t *testing.T, v *View, name string, dirty []int64, granularity int64) {
	t.Helper()
	slices.Sort(dirty)
	var ranges []sparse.Extent
	for _, g := range slices.Compact(dirty) {
		ranges = append(ranges, sparse.Extent{Off: g * granularity, Len: min(granularity, v.Size()-g*granularity), Kind: sparse.Data})
	}
	check := func(off, n int64) {
		t.Helper()
		got := extents(t, v.recorded(name, off, n))
		want := extents(t, sparse.Coalesce(sparse.Intersect(v.Extents(off, n), sparse.Coalesce(sparse.Of(ranges...)))))
		if !slices.Equal(got, want) {
			t.Errorf("%s in [%d,%d): %v, want %v", name, off, off+n, got, want)
		}
	}
	check(0, v.Size())
	rnd := rand.New(rand.NewPCG(uint64(len(dirty)), 6))
	for range 100 {
		off := rnd.Int64N(v.Size() + 1)
		check(off, rnd.Int64N(v.Size()-off+1))
	}
}

// checkBitmapNBD compares with the bitmap as qemu-nbd serves it.
func checkBitmapNBD(t *testing.T, path string, v *View, name string) {
	nbdinfo, ok := testtool.Find("nbdinfo")
	nbd, ok2 := testtool.Find("qemu-nbd")
	if !ok || !ok2 {
		return
	}
	out, err := exec.Command(nbdinfo, "--json", "--map=qemu:dirty-bitmap:"+name, "--", "[", nbd, "-r", "-f", "qcow2", "-B", name, path, "]").CombinedOutput()
	var rows []struct{ Offset, Length, Type int64 }
	if err == nil {
		err = json.Unmarshal(out, &rows)
	}
	if err != nil {
		t.Fatalf("nbdinfo: %v: %s", err, out)
	}
	var want []sparse.Extent
	for _, r := range rows {
		if r.Type == 1 {
			want = append(want, sparse.Extent{Off: r.Offset, Len: r.Length, Kind: sparse.Data})
		}
	}
	var got []sparse.Extent
	for e := range v.recorded(name, 0, v.Size()) {
		e.Kind = sparse.Data
		got = append(got, e)
	}
	if got := extents(t, sparse.Coalesce(sparse.Of(got...))); !slices.Equal(got, extents(t, sparse.Coalesce(sparse.Of(want...)))) {
		t.Errorf("got %v, qemu-nbd says %v", got, want)
	}
}

func TestBitmapInUse(t *testing.T) {
	img := mustOpen(t, sample.Open(t, "bitmap-in-use.qcow2"))
	list, err := img.Bitmaps()
	if err != nil || len(list) != 1 || list[0].Flags&BitmapInUse == 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	_, err = sparse.Collect(img.Active().recorded(list[0].Name, 0, img.Active().Size()))
	if !errors.Is(err, ErrBitmapInUse) {
		t.Error(err)
	}
	wantFormatError(t, err, fmt.Sprintf("name %q: in_use is set", list[0].Name))
}
