// Package cli is the command line of cbt: one file per command, and the only
// code of the project that opens files.
package cli

import (
	"context"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"cbt/internal/audit"
	"cbt/internal/fail"
	"cbt/internal/ordered"
)

// app is one run of the program: its environment and the flags that every
// command has.
type app struct {
	Env
	json     bool // machine-readable output, errors included
	verbose  bool
	quiet    bool // no summaries
	nagios   bool // an error is one line on stdout
	progress bool // show progress even where Stderr is no terminal

	started bool     // the command line was accepted, a command runs
	args    []string // the command line

	stand     *standIns       // of the first opener that has such flags
	audit     *audit.Recorder // nil without --audit
	auditFlag string
	hashFlag  string
}

// Run executes one command line, without the program's name, and returns its
// exit code. It writes nothing but to env; a panic becomes exit code 1. When
// ctx comes from WithSignals, the exit code says which signal ended the run.
func Run(ctx context.Context, env Env, args []string) int {
	if env.Getenv == nil {
		env.Getenv = func(string) string { return "" }
	}
	out := &stickyWriter{ctx: ctx, w: env.Stdout}
	env.Stdout = out
	a := &app{Env: env, args: args}
	a.json = hasJSONFlag(args)
	a.nagios = slices.Contains(args, "log") && slices.Contains(args, "--nagios")
	err := a.startAudit(ctx, args)
	if err == nil {
		err = a.execute(ctx, args)
	}
	if err == nil && out.err != nil {
		a.started, err = true, out.err
	}
	err = a.audit.Finish(err)
	code := a.report(ctx, err)
	if err := a.audit.End(code, err); err != nil {
		if again := a.report(ctx, err); code == fail.Done {
			code = again
		}
	}
	return code
}

func (a *app) execute(ctx context.Context, args []string) (err error) {
	defer ordered.Caught(&err)
	root := newRootCommand(a)
	a.json = hasJSONFlag(args)
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	return root.ExecuteContext(ctx)
}

// Warnf prints a line on stderr that is not the end of the run.
func (a *app) Warnf(format string, args ...any) {
	a.line("warning", "cbt: warning: ", format, args)
}

// Notef prints what a command did, on stderr.
func (a *app) Notef(format string, args ...any) {
	if !a.quiet {
		a.sayf(format, args...)
	}
}

// sayf prints what is wanted with --quiet too.
func (a *app) sayf(format string, args ...any) {
	a.line("note", "", format, args)
}

// Debugf prints what --verbose asks for.
func (a *app) Debugf(format string, args ...any) {
	if a.verbose {
		a.line("debug", "cbt: ", format, args)
	}
}

// commands is where every command is registered, in the order of the manual.
var commands = []func(*app) *cobra.Command{
	newInfoCommand,
	newMapCommand,
	newDiffCommand,
	newBackupCommand,
	newApplyCommand,
	newRestoreCommand,
	newCatCommand,
	newHashCommand,
	newServeCommand,
	newMountCommand,
	newUmountCommand,
	newVerifyCommand,
	newMergeCommand,
	newPruneCommand,
	newLogCommand,
	newCheckCommand,
	newRAMCommand,
	newLVMCommand,
	newCompletionCommand,
	newManCommand,
	newVersionCommand,
}

func newRootCommand(a *app) *cobra.Command {
	// Cobra's own --version prints by a template; to have templates costs 4 MB.
	version := false
	root := &cobra.Command{
		Use:   "cbt",
		Short: "back up virtual machines by what changed",
		Long: `cbt finds what changed between two snapshots of a virtual machine in metadata
that the snapshots keep anyway, carries it away as a delta file, and brings
every state of the chain back, byte for byte. It never writes to what it reads.

A reference REF names an image:
  disk.qcow2          its active state, backing files included
  disk.qcow2@monday   its internal snapshot "monday"
  disk.raw, /dev/sdb  a raw file or a block device
  lvm:vg0/vm1         a logical volume of this host, or of those that --pv names
  thin:3              a device of the thin pool that --thin-metadata names
  tuesday.cbt         the state after that delta`,
		Example: `  cbt info disk.qcow2
  cbt map disk.qcow2@monday`,
		Annotations:   exits(fail.Done, fail.Failed, fail.UsageCode, fail.FindingsCode, fail.WrongBaseCode, fail.BusyCode),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if version {
				return a.printVersion()
			}
			return unknownCommand(cmd, args)
		},
	}
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", false, "machine-readable output: JSON on stdout, an object a line on stderr")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "say more on stderr")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "no summary on stderr, only warnings and errors; no lines on stdout that say that all is well")
	flags.BoolVar(&a.progress, "progress", false, "show progress on stderr even if it is no terminal")
	flags.StringVar(&a.auditFlag, "audit", "", "append a record of the run to `FILE`: what was read and written (CBT_AUDIT)")
	flags.StringVar(&a.hashFlag, "hash", "", "hash all inputs for the record: `WHEN` is before, after or both")
	flags.BoolP("help", "h", false, "show help")
	root.Flags().BoolVar(&version, "version", false, "print the version")

	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.SetHelpFunc(func(c *cobra.Command, _ []string) {
		// Errors stick to the writer.
		_, _ = io.WriteString(a.Stdout, helpText(c))
	})
	root.SetFlagErrorFunc(flagError)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(newHelpCommand())
	for _, newCommand := range commands {
		root.AddCommand(newCommand(a))
	}
	for _, c := range append(root.Commands(), root) {
		a.guard(c)
	}
	a.addCompletion(root)
	return root
}

// guard makes c refuse empty arguments, and notes when it starts to run.
func (a *app) guard(c *cobra.Command) {
	checkArgs, run := c.Args, c.RunE
	c.Args = func(c *cobra.Command, args []string) error {
		if slices.Contains(args, "") {
			return fail.Usage("%s: argument %d is empty: is a variable unset?",
				c.Name(), slices.Index(args, "")+1)
		}
		if err := refuseEmptyFlags(c); err != nil {
			return err
		}
		if err := a.checkAuditFlags(); err != nil || checkArgs == nil {
			return err
		}
		return checkArgs(c, args)
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		a.started = true
		return run(c, args)
	}
}

func refuseEmptyFlags(c *cobra.Command) (err error) {
	c.Flags().Visit(func(f *pflag.Flag) {
		empty := f.Value.String() == "" && f.Value.Type() == "string"
		if list, ok := f.Value.(pflag.SliceValue); ok {
			empty = slices.Contains(list.GetSlice(), "")
		}
		if empty && err == nil {
			err = fail.Usage("%s: --%s is empty: is a variable unset?", c.Name(), f.Name)
		}
	})
	return err
}

// hasJSONFlag finds --json without parsing, for errors in the flags.
func hasJSONFlag(args []string) (json bool) {
	for _, arg := range args {
		value, set := strings.CutPrefix(arg, "--json=")
		switch {
		case arg == "--json":
			json = true
		case set:
			on, err := strconv.ParseBool(value)
			json = on && err == nil
		case arg == "--":
			return json
		}
	}
	return json
}
