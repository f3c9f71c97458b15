// Command make remakes the images in testdata/lvm and the tables in its
// README.md, in a test machine: go run ./testdata/lvm/make [SET...]
package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cbt/internal/testvm"
)

const dir = "testdata/lvm"

// sets are the functions of images.sh, with the disks that each is given.
var sets = []struct {
	name  string
	disks int
	size  int64
}{
	{"raid", 6, 40 << 20},
	{"failed", 4, 8 << 20},
	{"mixed", 3, 24 << 20},
}

func main() {
	log.SetFlags(0)
	script, err := os.ReadFile(filepath.Join(dir, "images.sh"))
	if err != nil {
		log.Fatal(err, ": run this from the root of the module")
	}
	for _, s := range sets {
		if len(os.Args) > 1 && !slices.Contains(os.Args[1:], s.name) {
			continue
		}
		if err := makeSet(string(script), s.name, s.disks, s.size); err != nil {
			log.Fatalf("%s: %v", s.name, err)
		}
	}
}

// makeSet runs one function of the script in a machine of its own, packs its
// disks, and replaces its rows in README.md.
func makeSet(script, name string, disks int, size int64) error {
	tmp, err := os.MkdirTemp("", "lvm-images-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	var opt testvm.Options
	call := name
	for i := range disks {
		path := filepath.Join(tmp, fmt.Sprintf("%s-%d.img", name, i))
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		if err := f.Truncate(size); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		opt.Disks = append(opt.Disks, testvm.Disk{Path: path})
		call += fmt.Sprintf(" /dev/vd%c", 'a'+i)
	}
	vm, err := testvm.Boot(opt)
	if err != nil {
		return err
	}
	defer vm.Kill()
	r, err := vm.Exec(testvm.Command{Script: script + "\n" + call + "\n", Timeout: -1})
	if err != nil {
		return err
	}
	os.Stderr.Write(r.Stderr)
	if r.Exit != 0 {
		return fmt.Errorf("exit %d\n%s", r.Exit, vm.Console())
	}
	if err := vm.Shutdown(); err != nil {
		return err
	}
	for _, d := range opt.Disks {
		if err := pack(filepath.Join(dir, filepath.Base(d.Path)+".gz"), d.Path); err != nil {
			return err
		}
	}
	return rewrite(name, string(r.Stdout))
}

func pack(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	var buf bytes.Buffer
	z, _ := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if _, err := io.Copy(z, in); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(dst, buf.Bytes(), 0o644)
}

// rewrite replaces the rows of a set in the table of README.md.
func rewrite(name, out string) error {
	readme := filepath.Join(dir, "README.md")
	b, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	var lines []string
	for _, line := range strings.Split(strings.TrimRight(string(b), "\n"), "\n") {
		if !strings.HasPrefix(line, "| `"+name+"` |") {
			lines = append(lines, line)
		}
	}
	for _, line := range strings.Split(out, "\n") {
		if f := strings.Fields(line); len(f) == 4 && f[0] == "CONTENT" {
			lines = append(lines, fmt.Sprintf("| `%s` | `%s` | %s | `%s` |", name, f[1], f[2], f[3]))
		}
	}
	return os.WriteFile(readme, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}
