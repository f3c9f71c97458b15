package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/text"
	"cbt/qcow2/vmstate"
	"cbt/sparse"
)

// What --format says.
const (
	dumpELF    = "elf"
	dumpRaw    = "raw"
	dumpBlocks = "blocks"
)

type ramDumpOptions struct {
	ramOptions
	out  string
	kind string // --format
}

func newRAMDumpCommand(a *app) *cobra.Command {
	opt := &ramDumpOptions{}
	c := &cobra.Command{
		Use:   "dump REF -o FILE",
		Short: "write RAM as a core file",
		Long: `dump writes the RAM of a saved machine as an ELF core file by guest physical
address, as QEMU's dump-guest-memory does, with the registers of its processors
where the state describes them: gdb, crash and Volatility read it.

--format raw writes physical memory from address 0 on, with holes where there is
none; --format blocks writes each RAM block of QEMU to a file of its own in the
directory FILE, which also works where nothing tells at which addresses they are.`,
		Example: `  cbt ram dump disk.qcow2@monday -o monday.core
  cbt ram dump --format raw vm.save -o physical.raw
  cbt ram dump --format blocks tuesday.cbt -o blocks/`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.WrongBaseCode, fail.BusyCode),
		Args:        wantArgs("REF"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ramDump(c.Context(), args[0], opt)
		},
	}
	flags := c.Flags()
	flags.StringVarP(&opt.out, "output", "o", "", "write to `FILE`, which must not exist; - is stdout")
	flags.StringVar(&opt.kind, "format", dumpELF, "`FORMAT` to write: elf, raw or blocks")
	opt.addFlags(flags)
	return c
}

func (a *app) ramDump(ctx context.Context, ref string, opt *ramDumpOptions) error {
	switch {
	case opt.kind != dumpELF && opt.kind != dumpRaw && opt.kind != dumpBlocks:
		return fail.Usage("--format %s: must be elf, raw or blocks", text.Printable(opt.kind))
	case opt.out == "":
		return fail.Usage("ram dump: -o FILE is missing")
	case opt.out == stdinName && (opt.kind == dumpBlocks || a.StdoutTerminal):
		return fail.Usage("-o -: name a file or a directory")
	case opt.out == stdinName:
		if err := a.keepsStdout(); err != nil {
			return err
		}
	}
	o, m, err := a.openRAM(ctx, ref, &opt.ramOptions)
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	if opt.kind == dumpBlocks {
		return a.dumpBlocks(ctx, m, opt.out)
	}
	ranges, err := m.physical(opt.machine)
	if err != nil {
		return err
	}
	str := "physical memory"
	var v sparse.View
	if opt.kind == dumpRaw {
		v, err = m.Flat(ranges, m.ram)
	} else {
		var core *vmstate.Core
		if core, err = m.Core(ranges, m.ram); err == nil {
			v, str = core, fmt.Sprintf("ELF core, registers of %s", text.Count(core.CPUs, "processor"))
			if core.NoCPUs != nil {
				str = fmt.Sprintf("ELF core without registers (%v)", core.NoCPUs)
			}
		}
	}
	if err != nil {
		return refError(m.ref, err)
	}
	if err := a.writeView(ctx, opt.out, v, m.changed); err != nil {
		return err
	}
	a.Notef("%s: %s, %s", text.Printable(opt.out), text.Size(v.Size()), str)
	if opt.out == stdinName {
		return nil
	}
	return a.result(writtenFiles{opt.out, 1, v.Size()})
}

// writeView writes an image to a file that appears when it is whole, or to
// stdout. last is called before.
func (a *app) writeView(ctx context.Context, path string, v sparse.View, last func() error) error {
	bar := a.Start("writing", v.Size())
	defer bar.Finish()
	if path == stdinName {
		if err := sparse.WriteRange(ctx, a.Stdout, v, 0, v.Size(), bar.Add); err != nil {
			return err
		}
		if err := last(); err != nil {
			return err
		}
		return a.syncStdout()
	}
	f, err := a.audit.Create(path, false)
	if errors.Is(err, fs.ErrExist) {
		return fail.Usage("%s: exists already, and -o never replaces a file", path)
	}
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := f.Truncate(v.Size()); err != nil {
		return err
	}
	target, err := sparse.OpenTarget(f.File.File)
	if err != nil {
		return err
	}
	if _, err := sparse.Copy(ctx, target, v, sparse.CopyOptions{Fresh: true, Progress: bar.Set}); err != nil {
		return err
	}
	if err := last(); err != nil {
		return err
	}
	return f.Commit()
}

// dumpBlocks writes each block to a file in dir.
func (a *app) dumpBlocks(ctx context.Context, m *machine, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if there, err := os.ReadDir(dir); err != nil {
		return err
	} else if len(there) > 0 {
		return fail.Usage("%s: is not empty", text.Printable(dir))
	}
	written, size := 0, int64(0)
	for _, b := range m.Blocks {
		if b.Shared {
			a.Warnf("%s: %s is not in the state (x-ignore-shared)", m.ref, text.Printable(b.Name))
			continue
		}
		v, err := m.ram(b)
		if err != nil {
			return err
		}
		if err := a.writeView(ctx, filepath.Join(dir, blockFile(b.Name)), v, m.changed); err != nil {
			return err
		}
		written++
		size += v.Size()
	}
	a.Notef("%s: %s", text.Printable(dir), text.Count(written, "block"))
	return a.result(writtenFiles{dir, written, size})
}

// blockFile is the name of a block as a file: what could mean another
// directory, or trouble a terminal, is escaped.
func blockFile(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c <= ' ', c >= 0x7f, strings.IndexByte(`/\%:*?"<>|`, c) >= 0, c == '.' && i == 0:
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String() + ".ram"
}
