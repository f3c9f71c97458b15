package cow

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cbt/internal/sample"
	"cbt/sparse"
)

// kernelSnapshot is a row of testdata/lvm/cow-README.md: what a kernel reported about a snapshot
// that it had made.
type kernelSnapshot struct {
	name, origin          string
	size                  int64
	sum, originSum        string // SHA-256; sum is "-" if the snapshot was lost
	used, size2, metadata int64  // of the store, in sectors
}

func kernelSnapshots(t *testing.T) []kernelSnapshot {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(sample.Dir(t), "lvm", "cow-README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var all []kernelSnapshot
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.ReplaceAll(strings.Trim(line, "| \n"), "`", ""), " | ")
		if len(cells) != 6 || cells[0] == "snapshot" {
			continue
		}
		s := kernelSnapshot{name: cells[0], origin: cells[1], sum: cells[3], originSum: cells[4]}
		if s.size, err = strconv.ParseInt(cells[2], 10, 64); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, err := fmt.Sscanf(cells[5], "%d/%d %d", &s.used, &s.size2, &s.metadata); err != nil && s.sum != "-" {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, s)
	}
	if len(all) < 15 {
		t.Fatalf("%d snapshots", len(all))
	}
	return all
}

// TestKernel reads what a kernel wrote: every snapshot and origin has the content that the kernel
// read from it, and as many exceptions as it counted.
func TestKernel(t *testing.T) {
	origins := map[string]sparse.View{}
	views := map[string][]*View{}
	for _, k := range kernelSnapshots(t) {
		if origins[k.origin] == nil {
			b := sample.Read(t, "lvm/cow-"+k.origin+".origin")
			if sum := fmt.Sprintf("%x", sha256.Sum256(b)); sum != k.originSum {
				t.Fatalf("%s: SHA-256 %s", k.origin, sum)
			}
			origins[k.origin] = sparse.Plain(bytes.NewReader(b), int64(len(b)))
		}
		b := sample.Read(t, "lvm/cow-"+k.name+".store")
		s, err := openBytes(b)
		if k.sum == "-" {
			if !errors.Is(err, ErrInvalidated) {
				t.Errorf("%s: %v", k.name, err)
			}
			// The kernel has left the table as it was.
			b[4] = 1
			if s := mustOpen(t, b); s.Len() != 30 {
				t.Errorf("%s: %d records, want all 30 that had a place", k.name, s.Len())
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		v, err := NewView(s, origins[k.origin], k.size)
		if err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		views[k.origin] = append(views[k.origin], v)
		p := content(t, v)
		if sum := fmt.Sprintf("%x", sha256.Sum256(p)); sum != k.sum {
			t.Errorf("%s: SHA-256 %s, want %s", k.name, sum, k.sum)
		}
		chunk := s.ChunkSize() / sectorSize
		if int64(s.Len())*chunk != k.used-k.metadata || int64(len(b)) != k.size2*sectorSize {
			t.Errorf("%s: %d records of %d sectors, %d bytes; the kernel has %+v", k.name, s.Len(), chunk, len(b), k)
		}
		if areas := int64(s.Len())/(s.ChunkSize()/exceptionSize) + 1; (1+areas)*chunk != k.metadata {
			t.Errorf("%s: %d areas, the kernel has %d sectors of metadata", k.name, areas, k.metadata)
		}
		if n, ok := strings.CutPrefix(k.name, "n"); ok && n != strconv.Itoa(s.Len()) {
			t.Errorf("%s: %d records", k.name, s.Len())
		}
		checkChanged(t, v, v.Origin())
		checkChanged(t, v.Origin(), v)
		if err := v.Recheck(); err != nil {
			t.Errorf("%s: %v", k.name, err)
		}
	}
	days := views["days-org"]
	if len(days) != 3 {
		t.Fatalf("%d snapshots of one origin", len(days))
	}
	for _, old := range days {
		for _, new := range days {
			checkChanged(t, old, new)
		}
	}
	// What was written between the two, and one block that tuesday itself got.
	if n, err := sparse.Total(Compare(days[0], days[1], 0, days[0].Size())); err != nil || n != 301*4096 {
		t.Errorf("between monday and tuesday %d bytes changed, %v; want %d", n, err, 301*4096)
	}
}
