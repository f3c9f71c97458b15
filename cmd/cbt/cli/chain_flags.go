package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/pflag"

	"cbt/cbt"
	"cbt/internal/infile"
	"cbt/internal/store"
)

func addChainFlag(o *store.ChainOptions, fs *pflag.FlagSet) {
	fs.StringVar(&o.Dir, "chain", "", "look for the deltas that others build on in `DIR` (default: where the delta is)")
}

func addSpoolFlag(o *store.ChainOptions, fs *pflag.FlagSet) {
	fs.StringVar(&o.SpoolDir, "spool-dir", "", "`DIR` where a delta from standard input is kept until it is verified (default: TMPDIR or /var/tmp)")
}

// stdinName is the argument that means standard input or output.
const stdinName = "-"

// spoolDir is where files without a name are made.
func (a *app) spoolDir(flag string) string { return cmp.Or(flag, a.Getenv("TMPDIR"), "/var/tmp") }

// spool verifies a delta that comes on standard input while it is copied to a
// file without a name, and opens that: nothing is made of a delta before all
// of it is there and right.
func spool(a *app, ctx context.Context, o *opener, opt store.ChainOptions) (*store.File, error) {
	tmp, err := infile.Unnamed(a.spoolDir(opt.SpoolDir))
	if err != nil {
		return nil, fmt.Errorf("keeping the delta from standard input: %w", err)
	}
	f := &infile.Input{File: tmp, Path: "standard input", Count: &o.reads.Int64}
	_, sum, err := cbt.Verify(ctx, infile.Tee(ctx, a.Stdin, tmp), cbt.VerifyOptions{})
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	d, err := cbt.Open(f, sum.Size)
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	return o.Keep(&store.File{Delta: d, Name: "standard input", Dir: "", Input: f}), nil
}

// resolveAll is resolve for commands that take directories too.
func (a *app) resolveAll(args []string) ([]string, error) {
	o, err := a.newOpener(openerOptions{})
	if err != nil {
		return nil, err
	}
	defer o.Close()
	args = slices.Clone(args)
	for i, arg := range args {
		if arg == stdinName || infile.Exists(arg) {
			continue
		}
		if args[i], err = o.Resolve(arg); err != nil {
			return nil, err
		}
	}
	return args, nil
}
