package cli

import (
	"context"

	"cbt/internal/fail"
	"cbt/internal/imagelock"
)

// settle does the same for files of which more than metadata is read. A file
// system in memory changes a file's times only when a page is first written to
// through a mapping: there nobody may have the file open for writing now, or
// nothing would tell what is written later. Who comes after that is seen.
func (o *opener) settle(ctx context.Context, f *file) error {
	if o.metadataOnly {
		return nil
	}
	if err := f.Input.Settle(ctx); err != nil || f.Info.Block || !f.Info.InMemory || o.Frozen {
		return err
	}
	writer, err := imagelock.OpenForWriting(f.File)
	switch {
	case err != nil:
		f.Info.Untold = true
		o.Warnf("%s: has no point: its file system is in memory, where times do not tell of writes through a mapping, and who has it open cannot be found out (%v): --frozen says that nobody writes to it", f.Path, err)
	case writer:
		return fail.Busy("%s: another program has it open for writing, and its file system is in memory, where times do not tell of writes through a mapping: --frozen says that nobody writes to it", f.Path)
	}
	return nil
}
