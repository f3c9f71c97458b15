package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"cbt/internal/fail"
	"cbt/internal/store"
	"cbt/qcow2/vmstate"
)

func newRAMCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "ram",
		Short: "look into the RAM of a saved machine",
		Long: `ram looks into the RAM that was saved with a machine: with a snapshot of a qcow2
image, by virsh save, by QEMU's migration to a file, or in a delta.`,
		Example: `  cbt ram dump disk.qcow2@monday -o monday.core
  cbt ram diff disk.qcow2@monday disk.qcow2@tuesday
  cbt ram find --text passphrase vm.save`,
		Annotations: exits(fail.Done, fail.UsageCode),
		Args:        cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			return unknownCommand(c, args)
		},
	}
	c.AddCommand(newRAMDumpCommand(a), newRAMDiffCommand(a), newRAMFindCommand(a))
	for _, sub := range c.Commands() {
		a.guard(sub)
	}
	return c
}

// ramOptions are the flags of what looks into one machine's RAM.
type ramOptions struct {
	source  openerOptions
	ref     refOptions
	chain   store.ChainOptions
	machine string
}

func (o *ramOptions) addFlags(fs *pflag.FlagSet) {
	o.source.addReadFlags(fs)
	o.ref.addFlags(fs, "", "REF")
	addChainFlag(&o.chain, fs)
	fs.StringVar(&o.machine, "machine", "", "QEMU's machine `TYPE` (pc, q35), which tells where RAM is, for states that name none")
}

// openRAM opens the machine that ref names.

func (a *app) openRAM(ctx context.Context, ref string, opt *ramOptions) (o *opener, m *machine, err error) {
	if o, err = a.newOpener(opt.source); err != nil {
		return nil, nil, err
	}
	o.chainFrom(opt.chain)
	if m, err = o.openMachine(ctx, ref, opt.ref); err != nil {
		a.closeOpener(o)
		return nil, nil, err
	}
	return o, m, nil
}

// changed says whether somebody changed what the state was read from.
func (m *machine) changed() error {
	if m.recheck == nil {
		return nil
	}
	return m.recheck()
}

// tellMachine says how the user can tell where RAM is, if that would be heard: a
// state that names its machine type is believed.
func (m *machine) tellMachine(end string) string {
	if m.MachineType != "" {
		return ""
	}
	return "--machine pc or q35 tells" + end
}

// physical is where the RAM is, or says what else can be had.
func (m *machine) physical(machine string) ([]vmstate.Range, error) {
	ranges, err := m.RAMRanges(machine)
	if err != nil {
		return nil, fmt.Errorf("%s: %w (%s--format blocks takes the blocks as they are)", m.ref, err, m.tellMachine("; "))
	}
	return ranges, nil
}
