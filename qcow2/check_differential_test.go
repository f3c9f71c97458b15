package qcow2_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cbt/internal/testtool"
	"cbt/qcow2"
	"cbt/sparse"
)

// words holds the offsets of 8-byte words of metadata, by the structure they belong to.
type words map[string][]int64

// metadata finds the metadata of a sound image. Words that are not zero are listed once more, so
// that they are hit more often.
func metadata(b []byte) words {
	be, w := binary.BigEndian, words{}
	u64 := func(off int64) uint64 { return be.Uint64(b[off:]) }
	const mask = 0x00ff_ffff_ffff_fe00
	add := func(what string, off, n int64) {
		for p := off; p < off+n && p+8 <= int64(len(b)); p += 8 {
			w[what] = append(w[what], p)
			if u64(p) != 0 {
				w[what] = append(w[what], p, p, p, p, p, p, p)
			}
		}
	}
	entries := func(off, n int64) (list []int64) {
		for p := off; p < off+n*8 && p+8 <= int64(len(b)); p += 8 {
			if e := int64(u64(p) & mask); e != 0 {
				list = append(list, e)
			}
		}
		return list
	}
	cluster := int64(1) << be.Uint32(b[20:])
	l1 := func(off, n int64) {
		add("l1", off, n*8)
		for _, l2 := range entries(off, n) {
			add("l2", l2, cluster)
		}
	}
	v3 := be.Uint32(b[4:]) == 3
	if v3 {
		add("header", 0, int64(be.Uint32(b[100:])))
	} else {
		add("header", 0, 72)
	}
	l1(int64(u64(40)), int64(be.Uint32(b[36:])))
	table, n := int64(u64(48)), int64(be.Uint32(b[56:]))*cluster
	add("refcount table", table, n)
	for _, block := range entries(table, n/8) {
		add("refcount block", block, cluster)
	}
	pos := int64(u64(64))
	for range be.Uint32(b[60:]) {
		size := 40 + int64(be.Uint32(b[pos+36:])) + int64(be.Uint16(b[pos+12:])) + int64(be.Uint16(b[pos+14:]))
		add("snapshot table", pos, size)
		l1(int64(u64(pos)), int64(be.Uint32(b[pos+8:])))
		pos += (size + 7) &^ 7
	}
	for p := int64(be.Uint32(b[100:])); v3; {
		typ, n := be.Uint32(b[p:]), int64(be.Uint32(b[p+4:]))
		if typ == 0 {
			break
		}
		if typ == qcow2.ExtensionBitmaps && b[95]&1 != 0 {
			add("extension", p, 8+n)
			dir, end := int64(u64(p+24)), int64(u64(p+24)+u64(p+16))
			add("bitmap directory", dir, end-dir)
			for dir < end {
				table, n := int64(u64(dir)), int64(be.Uint32(b[dir+8:]))
				add("bitmap table", table, n*8)
				dir += (24 + int64(be.Uint32(b[dir+20:])) + int64(be.Uint16(b[dir+18:])) + 7) &^ 7
			}
		}
		p += 8 + (n+7)&^7
	}
	return w
}

// damage changes one metadata word of b and returns which.
func (w words) damage(r *rand.Rand, b []byte, cluster uint64) (what string) {
	kinds := slices.Sorted(maps.Keys(w))
	what = kinds[r.IntN(len(kinds))]
	off := w[what][r.IntN(len(w[what]))]
	be := binary.BigEndian
	was := be.Uint64(b[off:])
	word := was
	switch r.IntN(12) {
	case 0, 1, 2:
		word ^= 1 << r.IntN(64)
	case 3:
		word = 0
	case 4:
		word = r.Uint64()
	case 5: // the value of another word of the same structure
		word = be.Uint64(b[w[what][r.IntN(len(w[what]))]:])
	case 6: // some other cluster
		word = word&^0x00ff_ffff_ffff_fe00 | r.Uint64N(uint64(len(b))/cluster+2)*cluster
	case 7:
		word += cluster
	case 8:
		word ^= 1 << 63
	case 9: // one small field
		shift := r.IntN(4) * 16
		word = word&^(0xffff<<shift) | r.Uint64N(5)<<shift
	case 10:
		word ^= 1 << 62
	case 11:
		word ^= 1 << r.IntN(9)
	}
	be.PutUint64(b[off:], word)
	return fmt.Sprintf("%s at 0x%x: %016x -> %016x", what, off, was, word)
}

// Whichever word of an image's metadata is damaged, the check finds what qemu-img calls corrupt or
// leaked. What only our check finds names the rule that it violates.
func TestCheckAgainstQEMU(t *testing.T) {
	testtool.Need(t, "qemu-io")
	cases := envCount(t, "CBT_CHECK_CASES", 400)
	const perImage = 25
	seen := map[string]int{}
	only := map[string]int{}
	for seed := 0; cases > 0; seed++ {
		r := rand.New(rand.NewPCG(uint64(seed), 8))
		dir := t.TempDir()
		h := newHistory(t, r, dir)
		for range 4 + r.IntN(10) {
			h.step()
		}
		sound, err := os.ReadFile(h.path)
		if err != nil {
			t.Fatal(err)
		}
		w := metadata(sound)
		for i := range min(cases, perImage) {
			b := slices.Clone(sound)
			did := []string{w.damage(r, b, uint64(h.cluster))}
			for r.IntN(3) == 0 {
				did = append(did, w.damage(r, b, uint64(h.cluster)))
			}
			if r.IntN(25) == 0 {
				b = b[:1024+r.IntN(len(b)-1024)]
				did = append(did, fmt.Sprintf("cut at 0x%x", len(b)))
			}
			if slices.Equal(b, sound) {
				continue
			}
			path := filepath.Join(dir, "damaged.qcow2")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			outcome := compareChecks(t, path, only)
			// An image may be refused only for its header and for missing tables.
			if all := strings.Join(did, " "); strings.Contains(outcome, "ours: refused") &&
				!strings.Contains(all, "header at") && !strings.Contains(all, "extension at") && !strings.Contains(all, "cut at") {
				outcome = "! " + outcome
			}
			seen[outcome]++
			if strings.HasPrefix(outcome, "!") {
				t.Errorf("image %d case %d: %s: %s\n%s", seed, i, outcome, did, h.options)
			}
		}
		cases -= min(cases, perImage)
		os.RemoveAll(dir)
	}
	for _, k := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%6d %s", seen[k], k)
	}
	for _, k := range slices.Sorted(maps.Keys(only)) {
		t.Logf("%6d clean to qemu-img: %s", only[k], k)
	}
}

// compareChecks describes the results of the two checks of an image. A result that must not occur
// begins with "!".
func compareChecks(t *testing.T, path string, only map[string]int) string {
	t.Helper()
	q := runQEMUCheck(t, path)
	stats, faults, err := checkFile(t, path)
	var format *sparse.FormatError
	if err != nil && !errors.As(err, &format) {
		return "! our error is not a format error: " + err.Error()
	}
	for _, f := range faults {
		if f.Cite == "" || f.Msg == "" || f.Struct == "" || strings.Contains(f.Msg, "%!") {
			return fmt.Sprintf("! fault without a reason: %+v", f)
		}
	}
	switch {
	case q.Exit == 1 && q.Corruptions+q.Leaks == 0:
		if err == nil && stats.Corruptions+stats.Leaks == 0 {
			return "qemu-img could not check, ours: clean: " + reason(q.Text)
		}
		return "qemu-img could not check, ours: faults or refused"
	case err != nil && q.Exit == 0:
		return "qemu-img: clean, ours: refused: " + format.Field
	case err != nil:
		return "qemu-img: faults, ours: refused"
	case q.Corruptions > 0 && stats.Corruptions == 0:
		return fmt.Sprintf("! corruption not found: %s", q.Text)
	case q.Leaks > 0 && stats.Corruptions+stats.Leaks == 0:
		return fmt.Sprintf("! leak not found: %s", q.Text)
	case q.Corruptions+q.Leaks == 0 && stats.Corruptions+stats.Leaks > 0:
		for _, f := range faults {
			if f.Kind != qcow2.Note {
				only[f.Cite]++
			}
		}
		return "qemu-img: clean, ours: faults"
	case q.Corruptions+q.Leaks == 0:
		return "both: clean"
	case q.Corruptions == stats.Corruptions && q.Leaks == stats.Leaks:
		return "both: faults, as many"
	}
	return "both: faults, not as many"
}

// reason returns the first line of a tool's message, without file names.
func reason(s string) string {
	first, _, _ := strings.Cut(s, "\n")
	return first[strings.LastIndex(first, ": ")+1:]
}
