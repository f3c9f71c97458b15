package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"cbt/internal/fail"
	"cbt/internal/sample"
	"cbt/internal/testtool"
	"cbt/internal/text"
)

// beside are the images that others stand on, or keep their data in.
var beside = map[string][]string{
	"chain-top.qcow2": {"chain-mid.qcow2", "chain-base.raw"}, "chain-mid.qcow2": {"chain-base.raw"},
	"short.qcow2": {"short-base.qcow2"}, "datafile.qcow2": {"datafile.data"}, "datafile-raw.qcow2": {"datafile-raw.data"},
}

// sampleNames lists the images of testdata that somebody can read.
func sampleNames(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(sample.Dir(t), "*.gz"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no images in testdata: %v", err)
	}
	var names []string
	for _, p := range paths {
		switch name := strings.TrimSuffix(filepath.Base(p), ".gz"); name {
		case "aes.qcow2", "luks.qcow2", "unknown-bit.qcow2": // refused
		default:
			names = append(names, name)
		}
	}
	return names
}

func sampleFormat(name string) string {
	if strings.HasSuffix(name, ".qcow2") {
		return formatQcow2
	}
	return formatRaw
}

// What qemu-img info says is in what info says, under the same keys.
func TestInfoIsQemuImgInfo(t *testing.T) {
	testtool.Need(t, "qemu-img")
	for _, name := range sampleNames(t) {
		t.Run(name, func(t *testing.T) {
			path := sample.Open(t, name, beside[name]...)
			format := sampleFormat(name)
			code, out, stderr := run(t, "info", "--json", "--force", "--format", format, path)
			if code != fail.Done {
				t.Fatalf("exit %d, %s", code, stderr)
			}
			var ours, theirs map[string]any
			if err := json.Unmarshal([]byte(out), &ours); err != nil {
				t.Fatal(err)
			}
			text := testtool.Run(t, "qemu-img", "info", "-f", format, "--output=json", path)
			if err := json.Unmarshal([]byte(text), &theirs); err != nil {
				t.Fatal(err)
			}
			if format == formatRaw {
				// QEMU counts in sectors.
				theirs["virtual-size"] = min(theirs["virtual-size"].(float64), fileSize(t, path))
			}
			compareJSON(t, "", theirs, ours)
		})
	}
}

func fileSize(t *testing.T, path string) float64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return float64(info.Size())
}

// compareJSON wants all of want in got, which may have more keys.
func compareJSON(t *testing.T, at string, want, got any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		m, _ := got.(map[string]any)
		for k, v := range want {
			compareJSON(t, at+"."+k, v, m[k])
		}
	case []any:
		list, _ := got.([]any)
		if len(list) != len(want) {
			t.Errorf("%s: %v, want %v", at, got, want)
			return
		}
		for i := range want {
			compareJSON(t, at, want[i], list[i])
		}
	default:
		if !reflect.DeepEqual(want, got) {
			t.Errorf("%s: %v, want %v", at, got, want)
		}
	}
}

// Nothing that an image says about itself reaches the terminal as a command.
func TestInfoIsPrintable(t *testing.T) {
	testtool.Need(t, "qemu-img")
	t.Chdir(t.TempDir())
	const path = "disk.qcow2"
	touch(t, "base\x1b[2J")
	testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base\x1b[2J", "-F", "raw", path, "1M")
	testtool.Run(t, "qemu-img", "bitmap", "--add", path, "b\x1b]0;x\a")
	testtool.Run(t, "qemu-img", "snapshot", "-c", "s\u202e\nx\x1b[2J", path)
	for _, args := range [][]string{
		{"info", path}, {"info", "--json", path}, {"info", path + "@x"}, {"map", path}, {"map", "--json", path}, {"check", path},
	} {
		_, out, stderr := run(t, args...)
		for _, r := range out + stderr {
			if r != '\n' && text.Unprintable(r) {
				t.Errorf("cbt %q prints %q:\n%s%s", args, r, out, stderr)
				break
			}
		}
	}
}
