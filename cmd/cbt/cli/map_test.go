package cli

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/fail"
	"cbt/internal/sample"
	"cbt/internal/testtool"
)

type mapRow struct {
	Start, Length int64
	Depth         int
	Present       bool
	Zero, Data    bool
	Offset        *int64
}

func (r mapRow) String() string {
	offset := "-"
	if r.Offset != nil {
		offset = fmt.Sprint(*r.Offset)
	}
	return fmt.Sprintf("%d+%d depth %d present %t zero %t data %t at %s", r.Start, r.Length, r.Depth, r.Present, r.Zero, r.Data, offset)
}

// joinRows takes away what map does not look at: holes that the host's file
// system has inside data clusters, which qemu-img prints as zero and data.
func joinRows(rows []mapRow) []mapRow {
	var all []mapRow
	for _, r := range rows {
		r.Zero = r.Zero && !r.Data
		if n := len(all); n > 0 {
			p := &all[n-1]
			touches := p.Offset == nil && r.Offset == nil || p.Offset != nil && r.Offset != nil && *p.Offset+p.Length == *r.Offset
			if p.Depth == r.Depth && p.Present == r.Present && p.Zero == r.Zero && p.Data == r.Data && touches {
				p.Length += r.Length
				continue
			}
		}
		all = append(all, r)
	}
	return all
}

func TestMapIsQemuImgMap(t *testing.T) {
	testtool.Need(t, "qemu-img")
	for _, name := range sampleNames(t) {
		t.Run(name, func(t *testing.T) {
			path := sample.Open(t, name, beside[name]...)
			t.Chdir(filepath.Dir(path)) // where QEMU looks for data files
			format := sampleFormat(name)
			code, out, stderr := run(t, "map", "--json", "--force", "--format", format, path)
			if code != fail.Done {
				t.Fatalf("exit %d, %s", code, stderr)
			}
			var ours, theirs []mapRow
			if err := json.Unmarshal([]byte(out), &ours); err != nil {
				t.Fatal(err)
			}
			text := testtool.Run(t, "qemu-img", "map", "-f", format, "--output=json", path)
			if err := json.Unmarshal([]byte(text), &theirs); err != nil {
				t.Fatal(err)
			}
			if format == formatRaw && len(theirs) > 0 { // QEMU counts in sectors
				last := &theirs[len(theirs)-1]
				last.Length = int64(fileSize(t, path)) - last.Start
			}
			theirs = joinRows(theirs)
			if fmt.Sprint(ours) != fmt.Sprint(theirs) {
				t.Errorf("ours:\n%v\nqemu-img's:\n%v", ours, theirs)
			}
		})
	}
}

func TestMapTable(t *testing.T) {
	path := sample.Open(t, "chain-top.qcow2", beside["chain-top.qcow2"]...)
	code, out, stderr := run(t, "map", path)
	if code != fail.Done {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if got := strings.Join(strings.Fields(lines[0]), " "); got != "START LENGTH KIND DEPTH OFFSET" {
		t.Errorf("head %q", got)
	}
	var end int64
	for _, line := range lines[1:] {
		var start, length int64
		var kind, offset string
		var depth int
		if _, err := fmt.Sscan(line, &start, &length, &kind, &depth, &offset); err != nil || start != end {
			t.Errorf("line %q: %v, want a start at %d", line, err, end)
		}
		end = start + length
	}
	if !strings.Contains(out, " 2 ") || !strings.Contains(out, "hole") {
		t.Errorf("no third level or no hole:\n%s", out)
	}
	code, part, stderr := run(t, "map", "--offset", "64K", "--length", "64K", path)
	if code != fail.Done || strings.Count(part, "\n") < 2 || !strings.Contains(part, " 65536 ") {
		t.Errorf("a part: exit %d, %s\n%s", code, stderr, part)
	}
}
