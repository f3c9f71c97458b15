package cli

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"testing"
)

func TestHashLines(t *testing.T) {
	sum := fmt.Sprintf("%x", sha256.Sum256(nil))
	for _, name := range []string{"a", " a", "a) = b", "a\nb", `\`, `a\nb`, "\r", "x offset 0-1", "ä\xff"} {
		for _, tagged := range []bool{false, true} {
			l := hashLine{algorithms[2], sum, name}
			got, ok := parseHashLine(l.print(tagged))
			if !ok || got.name != name || got.sum != sum || got.algo.name != "sha256" {
				t.Errorf("%q: %q, %v", l.print(tagged), got.name, ok)
			}
		}
	}
	for _, line := range []string{
		"", "x", sum, sum + "  ", sum[:63] + "  a", sum + "0  a", "\\" + sum + `  a\`, "\\" + sum + `  a\t`,
		"MD5 (a) = " + sum, "CRC (a) = " + sum, "SHA256 () = " + sum, "SHA256 (a)= " + sum, "SHA256 (a) = " + sum + " ",
	} {
		if l, ok := parseHashLine(line); ok {
			t.Errorf("%q is a line: %q", line, l.name)
		}
	}
	if l, ok := parseHashLine(sum + " *binary"); !ok || l.name != "binary" {
		t.Errorf("%q, %v", l.name, ok)
	}
	for _, name := range []string{"a offset 5-4", "a offset 0-9223372036854775807", "a offset 0-99999999999999999999", " offset 0-1", "a offset -1-1"} {
		if ref, _, _, part := splitPart(name); part {
			t.Errorf("%q is a part of %q", name, ref)
		}
	}
	if ref, off, n, part := splitPart(nameOfPart("a offset 0-1", 7, 9)); ref != "a offset 0-1" || off != 7 || n != 9 || !part {
		t.Errorf("%q, %d, %d, %v", ref, off, n, part)
	}
}

// Whatever the sizes of writes, pieces and the whole are those of the bytes.
func TestSummer(t *testing.T) {
	data := make([]byte, 10_000)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	for _, piece := range []int64{0, 1000, 4096, 10_000, 20_000} {
		for _, step := range []int{1, 999, 1000, 4097, 10_000} {
			var got, want []string
			s := newSummer(algorithms[:3], 100, piece, func(off, n int64, sums []string) error {
				got = append(got, fmt.Sprintf("%d+%d %s %s", off, n, sums[0], sums[2]))
				return nil
			})
			for rest := bytes.NewBuffer(data); rest.Len() > 0; {
				p := rest.Next(step)
				if n, err := s.Write(p); n != len(p) || err != nil {
					t.Fatal(n, err)
				}
			}
			if err := s.endPiece(); err != nil {
				t.Fatal(err)
			}
			for off := int64(0); piece > 0 && off < 10_000; off += piece {
				p := data[off:min(10_000, off+piece)]
				want = append(want, fmt.Sprintf("%d+%d %x %x", off+100, len(p), md5.Sum(p), sha256.Sum256(p)))
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("piece %d, step %d: %q, want %q", piece, step, got, want)
			}
			if sums := s.sums(); sums[0] != fmt.Sprintf("%x", md5.Sum(data)) || sums[2] != fmt.Sprintf("%x", sha256.Sum256(data)) {
				t.Errorf("piece %d, step %d: %q", piece, step, sums)
			}
			s.close()
		}
	}
}
