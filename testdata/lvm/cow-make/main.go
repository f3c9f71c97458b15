// Command cow-make remakes testdata/lvm/cow-*.gz and the table in cow-README.md, in
// a test machine: go run ./testdata/lvm/cow-make
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"

	"cbt/internal/testvm"
)

const (
	dir  = "testdata/lvm"
	mark = "<!-- made by cow-make from here on -->\n"
)

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	script, err := os.ReadFile(filepath.Join(dir, "cow-guest.sh"))
	if err != nil {
		return fmt.Errorf("%w: run this from the root of the module", err)
	}
	tmp, err := os.MkdirTemp("", "cow-make-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	opt := testvm.Options{Programs: []string{"dd"}, Memory: 2048}
	for _, name := range []string{"pv", "out"} {
		path := filepath.Join(tmp, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return err
		}
		if err := os.Truncate(path, 1<<30); err != nil {
			return err
		}
		opt.Disks = append(opt.Disks, testvm.Disk{Path: path})
	}
	vm, err := testvm.Boot(opt)
	if err != nil {
		return err
	}
	defer vm.Kill()
	r, err := vm.Exec(testvm.Command{Script: string(script), Timeout: -1})
	if err != nil {
		return err
	}
	if r.Exit != 0 {
		return fmt.Errorf("%v\n%s", r, vm.Console())
	}
	if err := vm.Shutdown(); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, "cow-*.gz"))
	if err != nil {
		return err
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	out, err := os.Open(opt.Disks[1].Path)
	if err != nil {
		return err
	}
	defer out.Close()
	for files := tar.NewReader(out); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		b, err := io.ReadAll(files)
		if err != nil {
			return err
		}
		if h.Name == "table" {
			err = rewrite(string(b))
		} else {
			err = pack(filepath.Join(dir, "cow-"+h.Name+".gz"), b)
		}
		if err != nil {
			return err
		}
	}
}

func pack(name string, b []byte) error {
	var buf bytes.Buffer
	z, _ := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if _, err := z.Write(b); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(name, buf.Bytes(), 0o644)
}

// rewrite replaces what follows the mark in the page.
func rewrite(table string) error {
	name := filepath.Join(dir, "cow-README.md")
	page, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	head, _, ok := strings.Cut(string(page), mark)
	if !ok {
		return fmt.Errorf("%s has no line %q", name, mark)
	}
	return os.WriteFile(name, []byte(head+mark+"\n"+table), 0o644)
}
