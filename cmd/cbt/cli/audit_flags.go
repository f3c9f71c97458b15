package cli

import (
	"context"
	"crypto/sha256"
	"strings"

	"cbt/internal/audit"
	"cbt/internal/fail"
	"cbt/internal/text"
)

// auditPath finds --audit without parsing, so that errors in the flags are
// recorded too. The last one counts; without any, CBT_AUDIT does. What shells
// ask for while somebody types is no run.
func auditPath(args []string, env string) string {
	path := env
	for i, arg := range args {
		switch value, ok := strings.CutPrefix(arg, "--audit="); {
		case i == 0 && strings.HasPrefix(arg, "__complete"):
			return ""
		case arg == "--":
			return path
		case ok:
			path = value
		case arg == "--audit" && i+1 < len(args):
			path = args[i+1]
		}
	}
	return path
}

// startAudit begins the record of a run, if one is wanted. Call end in any case.
func (a *app) startAudit(ctx context.Context, args []string) error {
	path := auditPath(args, a.Getenv("CBT_AUDIT"))
	if path == "" {
		return nil
	}
	u, err := audit.New(ctx, audit.Run{Path: path, Version: Version, Arguments: args, Report: a})
	a.audit = u
	if err != nil {
		return err
	}
	if out, ok := a.Stdout.(*stickyWriter); ok {
		out.sum = sha256.New()
		if err := u.Output(out, out.w); err != nil {
			return err
		}
	}
	a.Stdin = u.StandardInput(a.Stdin)
	return nil
}

// checkAuditFlags refuses what the flags of the record cannot mean.
func (a *app) checkAuditFlags() error {
	u := a.audit
	switch {
	case a.auditFlag != "" && (u == nil || a.auditFlag != u.Path), u != nil && a.auditFlag == "" && u.Path != a.Getenv("CBT_AUDIT"):
		return fail.Usage("--audit %s: which file is meant? say --audit=FILE", text.Printable(a.auditFlag))
	case a.hashFlag == "":
		return nil
	case u == nil:
		return fail.Usage("--hash: is for the record of --audit FILE (cbt hash prints hashes)")
	}
	return u.SetHash(a.hashFlag)
}
