package arch

// layers, from the ground up: a package imports packages of the layers below its own, none beside it and
// none above. "x/..." is x and all below x. A new package needs a place here.
var layers = [][]string{
	{"internal/arch", "internal/deltaref", "internal/dm", "internal/fail", "internal/lru", "internal/machines", "internal/ordered", "internal/outfile", "internal/report", "internal/retention", "internal/tally", "internal/text", "internal/testdeb", "internal/testtool", "internal/testvm/wire"},
	{"internal/infile"},
	{"internal/sample", "internal/testimg", "internal/testnbd", "internal/testqemu", "internal/testthin", "internal/testvm", "internal/testvm/agent"},
	{"sparse"},
	{"sparse/sparsetest", "internal/binfmt"},
	{"internal/audit"},
	{"internal/record"},
	{"internal/imagelock", "internal/nbd", "internal/overlay", "internal/partition", "internal/tree"},
	{"internal/fsys"},
	{"internal/fuse"},
	{"cbt", "qcow2/...", "lvm/thin/...", "lvm/cow/..."},
	{"lvm", "internal/store"},
	{"internal/hostlvm"},
	{"cmd/cbt/cli"},
	{"cmd/cbt"},
}

// programs test and measure the whole; they import anything that is no command, and each other.
var programs = []string{"fuzz/...", "bench/..."}

// testOnly is imported by tests and programs alone.
var testOnly = []string{"testing", "cbt/internal/sample", "cbt/internal/testdeb", "cbt/internal/testimg", "cbt/internal/testnbd", "cbt/internal/testqemu", "cbt/internal/testthin", "cbt/internal/testtool", "cbt/internal/testvm", "cbt/sparse/sparsetest"}

// only names, for packages of others and a few of Go's own, all of ours that may import them outside of tests.
var only = map[string][]string{
	"github.com/dsnet/golib/hashmerge":    {"cbt"},
	"github.com/dsnet/golib/unitconv":     {"internal/text"},
	"github.com/hanwen/go-fuse/v2/fuse":   {"internal/fuse"},
	"github.com/klauspost/compress/flate": {"qcow2"},
	"github.com/klauspost/compress/gzip":  {"qcow2/vmstate"},
	"github.com/klauspost/compress/zlib":  {"qcow2/vmstate"},
	"github.com/klauspost/compress/zstd":  {"qcow2", "qcow2/vmstate"},
	"github.com/pierrec/lz4/v4":           {"cbt"},
	"github.com/schollz/progressbar/v3":   {"cmd/cbt/cli"},
	"github.com/spf13/cobra":              {"cmd/cbt/cli"},
	"github.com/spf13/cobra/doc":          {"cmd/cbt/cli"},
	"github.com/spf13/pflag":              {"cmd/cbt/cli"},
	"github.com/rogpeppe/go-internal/...": {},
	"github.com/ulikunitz/xz/lzma":        {"qcow2/vmstate"},
	"golang.org/x/sys/unix":               {"internal/dm", "internal/fuse", "internal/hostlvm", "sparse", "internal/imagelock", "internal/infile", "internal/outfile", "internal/record", "cmd/cbt/cli"},
	"golang.org/x/sys/windows":            {"sparse", "internal/imagelock", "internal/infile", "internal/outfile", "internal/record", "cmd/cbt/cli"},
	"golang.org/x/term":                   {"cmd/cbt/cli"},
	"os/exec":                             {"internal/fuse", "internal/tally", "internal/testdeb", "internal/testqemu", "internal/testtool", "internal/testvm/...", "cmd/cbt/cli"},
	"net":                                 {"internal/nbd", "internal/testnbd", "internal/testqemu", "cmd/cbt/cli"},
	"net/http":                            {},
	"unsafe":                              {"internal/dm"},
}

// pathless packages are given an io.ReaderAt and a size, never a path: they do not import os.
var pathless = []string{"qcow2/...", "lvm/...", "internal/binfmt", "internal/overlay", "internal/partition", "internal/fsys"}

// Limits of the tree.
const (
	maxGoLines       = 500
	maxMakefileLines = 79
	maxFile          = 1 << 20  // bytes
	maxBinary        = 14 << 20 // bytes of the program, stripped: it has 11
)
