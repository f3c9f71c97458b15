package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"

	"cbt/fuzz/tool"
)

// pool is two devices to compare.
type pool struct {
	name, file string
	// runs yields the runs of a device: where, data block, how many.
	runs func(device int, blocks int64, yield func(key, data, n int64))
}

var pools = []pool{
	{"all blocks differ", "differ", func(device int, blocks int64, yield func(key, data, n int64)) {
		yield(0, int64(device-1)*blocks, blocks)
	}},
	{"one block in 100 differs, with gaps", "scattered", func(device int, blocks int64, yield func(key, data, n int64)) {
		rnd := rand.New(rand.NewPCG(1, 2))
		key := int64(0)
		for done := int64(0); done < blocks; {
			n := min(1+rnd.Int64N(199), blocks-done)
			at := rnd.Int64N(n)
			key += rnd.Int64N(3)
			for _, part := range [][2]int64{{0, at}, {at, at + 1}, {at + 1, n}} {
				data := done + part[0]
				if device == 2 && part[0] == at && part[1] == at+1 {
					data += blocks
				}
				if part[0] < part[1] {
					yield(key+part[0], data, part[1]-part[0])
				}
			}
			key, done = key+n, done+n
		}
	}},
}

// make makes the metadata, unless they are there.
func (p pool) make(file string, blocks int64) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	part, xml := file+".part", file+".xml"
	defer os.Remove(xml)
	if err := p.writeXML(xml, blocks); err != nil {
		return err
	}
	os.Remove(part)
	f, err := os.Create(part)
	if err != nil {
		return err
	}
	defer f.Close()
	// 126 mappings fit into a leaf; and 16 MiB for the rest.
	if err := f.Truncate(2*blocks/126*4096*5/4 + 16<<20); err != nil {
		return err
	}
	if r := (tool.Cmd{}).Run("thin_restore", "-i", xml, "-o", part); r.Failed() {
		return fmt.Errorf("thin_restore: %s", r.Message())
	}
	return os.Rename(part, file)
}

func (p pool) writeXML(name string, blocks int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	fmt.Fprintf(w, `<superblock uuid="" time="1" transaction="2" flags="0" version="2" data_block_size="128" nr_data_blocks="%d">`+"\n", 2*blocks)
	for device := 1; device <= 2; device++ {
		fmt.Fprintf(w, `<device dev_id="%d" mapped_blocks="%d" transaction="0" creation_time="0" snap_time="0">`+"\n", device, blocks)
		p.runs(device, blocks, func(key, data, n int64) {
			fmt.Fprintf(w, `<range_mapping origin_begin="%d" data_begin="%d" length="%d" time="0"/>`+"\n", key, data, n)
		})
		fmt.Fprintln(w, "</device>")
	}
	fmt.Fprintln(w, "</superblock>")
	return w.Flush()
}

var deltaRun = regexp.MustCompile(`<(different|left_only|right_only) begin="(\d+)" length="(\d+)"/>`)

// sameBlocks compares our extents, in bytes, with thin_delta's runs, in blocks of 64 KiB. Both are joined where
// they touch.
func sameBlocks(ours, theirs []byte) error {
	var a, b []int64
	for line := range strings.Lines(string(ours)) {
		off, n, _ := strings.Cut(strings.TrimSpace(line), " ")
		a = appendRun(a, number(off)>>16, number(n)>>16)
	}
	for _, m := range deltaRun.FindAllStringSubmatch(string(theirs), -1) {
		b = appendRun(b, number(m[2]), number(m[3]))
	}
	if fmt.Sprint(a) != fmt.Sprint(b) || len(a) == 0 {
		return fmt.Errorf("%d runs of blocks changed, thin_delta has %d, and they are not the same", len(a)/2, len(b)/2)
	}
	return nil
}

// appendRun appends [begin, begin+n) to a list of starts and ends.
func appendRun(list []int64, begin, n int64) []int64 {
	if len(list) > 0 && list[len(list)-1] == begin {
		list[len(list)-1] += n
		return list
	}
	return append(list, begin, begin+n)
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return -1
	}
	return n
}
