package cli

import (
	"cmp"

	"cbt/internal/record"
)

// pointOfRaw is the opener's rawPoint: a file that cbt wrote and nobody
// touched since is at the point that its record says, which links chains; one
// that cbt left half written is no source at all. If somebody may have touched
// it, the record's point is one that it may be at.
func (o *opener) pointOfRaw(stateDir string) func(path, own string) (point, perhaps string, err error) {
	return func(path, own string) (string, string, error) {
		f, err := openFile(path, &o.reads, nil)
		if err != nil {
			return "", "", err
		}
		defer f.Close()
		r, how, err := record.WholeRecord(o.reads.Audit, f.File, path, stateDir)
		switch {
		case err != nil || how == record.FitsNot:
			return own, "", err
		case how == record.FitsMaybe:
			return own, r.Point, nil
		}
		return cmp.Or(r.Point, own), "", nil
	}
}
